#!/bin/sh
# A release build that the compiler has arranged by what the program really does (profile-guided optimisation): the
# program is built to take notes, serves the load of the bench, and is built again by these notes. It does the same as
# `cargo build --release` and takes less time for a request; docs/performance.md says how much less.
#
#   scripts/release.sh                   writes target/release-guided/outrigger
#
# Needs `rustup component add llvm-tools`. Takes two release builds and some minutes of load on loopback.
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$tools/llvm-profdata" ] || { echo "llvm-profdata is not there: rustup component add llvm-tools" >&2; exit 1; }
out=$PWD/target/release-guided
rm -rf "$out/notes"
mkdir -p "$out/notes"

# A target of its own (--target), so that build scripts and macros are not built to take notes.
RUSTFLAGS="-Cprofile-generate=$out/notes" cargo build --release --locked --bin outrigger --target "$host" --target-dir "$out/noting"
BENCH_OUTRIGGER="$out/noting/$host/release/outrigger" BENCH_PEERS=outrigger BENCH_ROUNDS=${ROUNDS:-1} BENCH_SECONDS=${SECONDS_EACH:-2} BENCH_IDLE=200 \
    cargo bench --locked --bench load
"$tools/llvm-profdata" merge -o "$out/notes.profdata" "$out/notes"
RUSTFLAGS="-Cprofile-use=$out/notes.profdata" cargo build --release --locked --bin outrigger --target "$host" --target-dir "$out/guided"
cp "$out/guided/$host/release/outrigger" "$out/outrigger"
echo "$out/outrigger"
