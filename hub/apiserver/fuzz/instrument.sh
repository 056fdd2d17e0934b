#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER of the fuzz build: only the server itself is instrumented, so that
# its dependencies are those of every other build and are not compiled again.
set -eu
case " $* " in
    *" --crate-name muster_apiserver "*)
        exec "$@" -Copt-level=1 -Ccodegen-units=1 -Cpasses=sancov-module \
            -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
    *) exec "$@" ;;
esac
