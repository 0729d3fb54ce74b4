#!/bin/sh
# Brings Apache Kafka for the tests: kafka.sh DIR      (root or sudo where Java or Maven is missing)
#
# DIR gets the broker's jars in DIR/jars: those of requirements/kafka.xml from Maven Central, as the machine's
# own Maven settings reach it, each checked against requirements/kafka.sha256. Quick when they are there.
# BRIDGE_TEST_KAFKA=host:port points the tests at another broker; then nothing is to be done here.
# After a change of kafka.xml: kafka.sh --lock writes the checksums anew.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
sums=$here/kafka.sha256

give_up() {
    echo "no Apache Kafka for the tests: $1; or BRIDGE_TEST_KAFKA=host:port names a broker to use" >&2
    exit 1
}

has_java() {
    version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 17 ]
}

# Copy the jars to the folder $1.
copy() {
    "$here/apt.sh" maven:mvn >&2 || give_up "Maven cannot be installed (apt-get install maven)"
    log=$(mktemp)
    if ! mvn --batch-mode --quiet --file "$here/kafka.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$1" >"$log" 2>&1; then
        grep -m 1 ERROR "$log" >&2 || true
        rm -f "$log"
        give_up "Maven Central cannot be reached (a mirror is named in ~/.m2/settings.xml)"
    fi
    rm -f "$log"
}

# Whether the folder $1 holds what is asked for, and nothing else.
complete() {
    [ "$(ls "$1" 2>/dev/null | wc -l)" -eq "$(wc -l <"$sums")" ] && (cd "$1" && sha256sum --check --status "$sums")
}

if [ "$1" = --lock ]; then
    folder=$(mktemp -d)
    copy "$folder"
    (cd "$folder" && sha256sum -- *.jar) >"$sums"
    rm -rf "$folder"
    exit
fi

[ -z "${BRIDGE_TEST_KAFKA:-}" ] || exit 0

# The program's name is one that nobody has: a java that is there but too old does not keep apt.sh from installing.
has_java || "$here/apt.sh" openjdk-17-jre-headless:bridge-java || "$here/apt.sh" default-jre-headless:bridge-java || true
has_java || give_up "Java 17 or later cannot be installed (apt-get install openjdk-17-jre-headless)"

complete "$1/jars" && exit 0
echo "fetching Apache Kafka into $1"
rm -rf "$1" "$1.new"
mkdir -p "$1.new/jars"
folder=$(CDPATH='' cd "$1.new/jars" && pwd)
copy "$folder"
complete "$folder" || give_up "what came from Maven Central is not what requirements/kafka.sha256 names"
mv "$1.new" "$1"
