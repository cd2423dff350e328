#!/bin/sh
# Runs every fuzz target for a while: fuzz.sh BUDGET, such as 1h or 20000x.
#
# A budget of time can end a sound target with "context deadline exceeded":
# the engine's workers race its clock (golang.org/issue/75804). One of
# executions (20000x) cannot.
set -eu

budget=$1
go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | while read -r package; do
    go test -list '^Fuzz' "$package" </dev/null | grep '^Fuzz' | while read -r target; do
        echo "fuzz $package $target $budget"
        go test -run '^$' -fuzz "^$target\$" -fuzztime "$budget" "$package" </dev/null
    done
done
