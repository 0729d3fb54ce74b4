#!/bin/sh
# Makes a virtual environment with pip in it: venv.sh DIR [MINOR]
#
# Takes $PYTHON, else python3.MINOR, else the newest Python from 3.14 down to 3.11. Each candidate is run,
# not just found: a pyenv shim may be in the PATH and lead nowhere. Debian splits venv and ensurepip into a
# package of their own; where they are missing they are installed (root or sudo), else pip is brought in
# from the outside. `venv.sh --find MINOR` only prints the interpreter; exit code 1 when there is none.
set -eu

usable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (4,))' >/dev/null 2>&1
}

# Print the interpreter of a minor version, wherever it is.
find_minor() {
    for candidate in "python3.$1" "/usr/bin/python3.$1" "/usr/local/bin/python3.$1" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$1".*/bin/python; do
        if usable "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" && echo "$PYTHON" && return 0
        echo "PYTHON=$PYTHON is not a Python >= 3.11" >&2
        return 1
    fi
    for minor in ${1:-14 13 12 11}; do
        find_minor "$minor" && return 0
    done
    if [ -z "${1:-}" ] && usable python3; then
        echo python3
        return 0
    fi
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

apt_install() {
    command -v apt-get >/dev/null || return 1
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    as_root apt-get update >/dev/null 2>&1 || return 1
    as_root apt-get install -y --no-install-recommends "$@" >/dev/null
}

has_pip() {
    "$directory/bin/python" -m pip --version >/dev/null 2>&1
}

make_environment() {
    rm -rf "$directory"
    # Deliberately without --upgrade-deps: pip as shipped; what it installs is pinned by hash.
    "$python" -m venv "$directory" >/dev/null 2>&1 && has_pip && return 0

    version=$("$python" -c 'import sys; print("python3.%d" % sys.version_info[1])')
    echo "$version cannot make virtual environments: installing $version-venv" >&2
    rm -rf "$directory"
    if apt_install "$version-venv" || apt_install python3-venv; then
        "$python" -m venv "$directory" >/dev/null && has_pip && return 0
    fi

    # Nobody may install packages here: an empty environment, and pip put into it from the outside.
    rm -rf "$directory"
    if "$python" -m venv --without-pip "$directory"; then
        "$directory/bin/python" -m ensurepip >/dev/null 2>&1 && has_pip && return 0
        "$python" -m pip --python "$directory/bin/python" install --quiet pip && has_pip && return 0
    fi
    "$python" -m virtualenv --quiet "$directory" && has_pip
}

if [ "$1" = --find ]; then
    find_python "$2"
    exit
fi

directory=$1
if ! python=$(find_python "${2:-}"); then
    echo "bridge needs Python 3.11 or later: apt-get install python3, or make PYTHON=/path/to/python3 …" >&2
    exit 1
fi
echo "environment $directory: $("$python" --version), $(command -v "$python")" >&2
if ! make_environment; then
    echo "no virtual environment could be made with $python: apt-get install python3-venv, then again" >&2
    exit 1
fi
