#!/bin/sh
# Brings Apache Kafka for the tests: kafka.sh DIR      (root or sudo where Java or Maven is missing)
#
# DIR gets the broker's jars in DIR/jars, as requirements/jars.sh brings them. Quick when they are there.
# BRIDGE_TEST_KAFKA=host:port points the tests at another broker; then nothing is to be done here.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)

[ -z "${BRIDGE_TEST_KAFKA:-}" ] || exit 0
if ! "$here/jars.sh" kafka "$1/jars"; then
    echo "no Apache Kafka for the tests; BRIDGE_TEST_KAFKA=host:port names a broker to use" >&2
    exit 1
fi
