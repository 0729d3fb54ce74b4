#!/bin/sh
# Brings jars for the tests: jars.sh NAME DIR      (root or sudo where Java or Maven is missing)
#
# DIR gets the jars of requirements/NAME.xml from Maven Central, as the machine's own Maven settings reach it, each
# checked against requirements/NAME.sha256. Quick when they are there. Says on standard error why it could not.
# After a change of NAME.xml: jars.sh --lock NAME writes the checksums anew.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)

give_up() {
    echo "$1" >&2
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
    if ! mvn --batch-mode --quiet --file "$here/$name.xml" dependency:copy-dependencies \
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
    name=$2
    folder=$(mktemp -d)
    copy "$folder"
    (cd "$folder" && sha256sum -- *.jar) >"$here/$name.sha256"
    rm -rf "$folder"
    exit
fi
name=$1
sums=$here/$name.sha256

# The program's name is one that nobody has: a java that is there but too old does not keep apt.sh from installing.
has_java || "$here/apt.sh" openjdk-17-jre-headless:bridge-java || "$here/apt.sh" default-jre-headless:bridge-java || true
has_java || give_up "Java 17 or later cannot be installed (apt-get install openjdk-17-jre-headless)"

complete "$2" && exit 0
echo "fetching the jars of requirements/$name.xml into $2"
rm -rf "$2" "$2.new"
mkdir -p "$2.new"
folder=$(CDPATH='' cd "$2.new" && pwd)
copy "$folder"
complete "$folder" || give_up "what came from Maven Central is not what requirements/$name.sha256 names"
mv "$2.new" "$2"
