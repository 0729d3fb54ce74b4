#!/bin/sh
# Builds the Go and the Java functions of tests/languages: languages.sh DIR   (root or sudo where a toolchain is missing)
#
# DIR/go gets a bootstrap: AWS's library as go.sum names it, by the machine's own Go module proxy. DIR/java gets classes and
# AWS's client beside them: jars as requirements/jars.sh brings them, compiled by one of them. Quick when they are there.
set -eu

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
sources=$(CDPATH='' cd "$here/../tests/languages" && pwd)
missing=0

say() {
    echo "no $1 function for the tests: $2" >&2
    missing=1
}

# Whether what is in the folder $1 was made of the files $2 …; else the folder is made anew.
made_of() {
    folder=$1
    shift
    cat "$@" | sha256sum >"$folder.sum"
    cmp -s "$folder.sum" "$folder/made-of" && rm "$folder.sum" && return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    return 1
}

build_go() {
    made_of "$1" "$0" "$sources/go/go.mod" "$sources/go/go.sum" "$sources/go/main.go" && return 0
    "$here/apt.sh" golang-go:go || return 1
    echo "building a Go function into $1"
    into=$(CDPATH='' cd "$1" && pwd)
    cache=$(mktemp -d)
    # Without optimisation, which takes half of the time; what it leaves behind is large.
    built=0
    (
        cd "$sources/go" || exit 1
        export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS= GOCACHE="$cache/build" GOMODCACHE="$cache/modules"
        go build -modcacherw -trimpath -gcflags='all=-N -l' -ldflags='-s -w' -tags lambda.norpc -o "$into/bootstrap" .
    ) || built=1
    rm -rf "$cache"
    [ $built = 0 ] && mv "$1.sum" "$1/made-of"
}

build_java() {
    "$here/jars.sh" java "$1-jars" || return 1
    made_of "$1" "$0" "$here/java.sha256" "$sources/java/Handlers.java" && return 0
    echo "building a Java function into $1"
    mkdir "$1/lib"
    for jar in "$1-jars"/*.jar; do
        case $jar in */ecj-*) ;; *) cp "$jar" "$1/lib" ;; esac
    done
    java -jar "$1-jars"/ecj-*.jar -17 -nowarn -cp "$1/lib/$(cd "$1/lib" && ls aws-lambda-java-core-*.jar)" \
        -d "$1" "$sources/java/Handlers.java" || return 1
    mv "$1.sum" "$1/made-of"
}

mkdir -p "$1"
build_go "$1/go" || say Go "Go 1.18 or later (apt-get install golang-go) or the Go module proxy cannot be reached"
build_java "$1/java" || say Java "Java 17 (apt-get install openjdk-17-jre-headless) or Maven Central cannot be reached"
exit $missing
