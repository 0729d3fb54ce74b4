#!/bin/sh
# Brings services of AWS for the tests: services.sh DIR     (root or sudo where Node.js is missing)
#
# DIR/aws gets ministack, moto server and the awscli of requirements/services.txt, an environment of their own;
# DIR/kinesis gets kinesis-local from npm, checked against requirements/kinesis.sha512. Quick when they are there.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
missing=0

say() {
    echo "no $1 for the tests: $2" >&2
    missing=1
}

bring_aws() {
    cmp -s "$here/services.txt" "$1/services.txt" && return 0
    echo "fetching ministack, moto server and awscli into $1"
    "$here/venv.sh" "$1" || return 1
    "$1/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --no-deps --no-build-isolation \
        --require-hashes -r "$here/services.txt" || return 1
    cp "$here/services.txt" "$1/services.txt"
}

bring_kinesis() {
    command -v node >/dev/null || "$here/apt.sh" nodejs:node || return 1
    cmp -s "$here/kinesis.sha512" "$1/kinesis.sha512" && return 0
    "$here/apt.sh" npm:npm || return 1
    archive=$(sed 's/.*  //' "$here/kinesis.sha512")
    release=$(echo "$archive" | sed 's/-\([0-9.]*\)\.tgz$/@\1/')
    echo "fetching $release into $1"
    rm -rf "$1"
    mkdir -p "$1"
    # From the folder itself: npm reads the settings of the folder that it runs in.
    (
        cd "$1" || exit 1
        npm pack --silent "$release" >/dev/null || exit 1
        sha512sum --check --quiet "$here/kinesis.sha512" || exit 1
        tar -xzf "$archive" --strip-components=1 && rm "$archive"
    ) || return 1
    cp "$here/kinesis.sha512" "$1/kinesis.sha512"
}

bring_aws "$1/aws" || say "ministack, moto server and awscli" "PyPI cannot be reached, or is not what requirements/services.txt names"
bring_kinesis "$1/kinesis" || say "kinesis-local" "Node.js (apt-get install nodejs npm) or the npm registry cannot be reached, or what came is not what requirements/kinesis.sha512 names"
exit $missing
