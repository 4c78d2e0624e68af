#!/bin/sh
# Coverage-guided fuzzing (docs/fuzzing.md): writes the seeds, then runs one target.
#
#   scripts/fuzz.sh                          the targets there are
#   scripts/fuzz.sh http1_request 1800       one, for half an hour
#   scripts/fuzz.sh http1_request FILE       what one input does
#
# Needs a nightly toolchain and `cargo install cargo-fuzz --locked`. What it finds lies in fuzz/artifacts/TARGET.
set -eu
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then
    cargo +nightly fuzz list
    exit
fi
target=$1
what=${2:-60}
if [ -f "$what" ]; then
    exec cargo +nightly fuzz run "$target" "$what"
fi

seeds=fuzz/seeds/$target
mkdir -p "$seeds" "fuzz/corpus/$target"
set --
case $target in
http1_*)
    mkdir -p fuzz/target
    rustc --edition 2024 --crate-type rlib --out-dir fuzz/target tests/http1_differential/corpus.rs
    rustc --edition 2024 -L fuzz/target --extern corpus fuzz/seeds.rs -o fuzz/target/write-seeds
    fuzz/target/write-seeds
    set -- -dict=fuzz/http1.dict -max_len=4096
    ;;
configuration)
    find config tests/golden -name '*.yaml' -size -16k -exec cp {} "$seeds" \;
    # Every key, and the words that stand for a choice.
    grep -ohE '[a-z_0-9]{2,}:?' config/outrigger.yaml | sort -u | sed 's/.*/"&"/' > "$seeds.dict"
    set -- "-dict=$seeds.dict" -max_len=8192
    ;;
esac
exec cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "$seeds" -- \
    "-max_total_time=$what" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 "$@"
