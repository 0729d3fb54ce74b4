#!/bin/sh
# Installs Debian packages whose program is not there yet: apt.sh PACKAGE:PROGRAM …   (root or sudo)
set -eu

missing=""
PATH="$PATH:/usr/sbin" # where Debian puts daemons
for pair in "$@"; do
    command -v "${pair#*:}" >/dev/null || missing="$missing ${pair%%:*}"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
export DEBIAN_FRONTEND=noninteractive
echo "installing$missing"
# shellcheck disable=SC2086 # a list of packages, split on purpose
$sudo apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 && exit 0
$sudo apt-get update >/dev/null
# shellcheck disable=SC2086
$sudo apt-get install -y --no-install-recommends $missing >/dev/null
