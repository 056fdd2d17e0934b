#!/bin/sh
# Fuzzes every parser that a client reaches, or those that are named:
#   run.sh [TARGET]...
# each for FUZZ_SECONDS, from the kept corpus and the seed FUZZ_SEED (always the same unless given: a
# run judges a change, not luck; 0 takes another each time, to look for more). What makes one fail is written to target/fuzz/found;
# once the parser is mended, it belongs into corpus/TARGET, where a test runs it ever after.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
seconds=${FUZZ_SECONDS:-8}
seed=${FUZZ_SEED:-1}
built=${CARGO_TARGET_DIR:-$root/target}
work=$built/fuzz

say() { echo "fuzz: $*" >&2; }

# libFuzzer is written in C++.
if ! command -v "${CXX:-c++}" >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing g++"
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq g++ >&2
    elif [ "${CI:-}" = true ]; then
        say "no C++ compiler: CI must not skip"
        exit 1
    else
        say "skipped: install a C++ compiler"
        exit 0
    fi
fi

cd "$root"
RUSTC_WORKSPACE_WRAPPER=$here/instrument.sh \
    "${CARGO:-cargo}" build --workspace --locked --features muster-fuzz/libfuzzer --bin fuzz

[ $# -gt 0 ] || set -- $(ls "$here/corpus")
failed=""
mkdir -p "$work/found"
for target in "$@"; do
    mkdir -p "$work/corpus/$target"
    # A hang is seen by the same limit as a crash; a server of its own is what takes most memory.
    if MUSTER_FUZZ_TARGET=$target "$built/debug/fuzz" \
        -seed="$seed" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=4096 \
        -artifact_prefix="$work/found/$target-" \
        "$work/corpus/$target" "$here/corpus/$target" >"$work/$target.log" 2>&1; then
        say "$target: $(grep DONE "$work/$target.log" | sed 's/.*DONE *//')"
    else
        say "$target failed:"
        tail -n 40 "$work/$target.log" >&2
        failed="$failed $target"
    fi
done
[ -z "$failed" ] || { say "failed:$failed; see $work/found"; exit 1; }
