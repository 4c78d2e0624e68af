#!/bin/sh
# Builds the two peers of `cargo bench --bench load` that no distribution has: Pingora, by a program around it
# (benches/peers/pingora), and sozu from crates.io. Both as Outrigger is built: all of it optimised as one.
#
#   scripts/peers.sh                     writes target/peers/pingora and target/peers/sozu
#   BENCH_PINGORA=target/peers/pingora BENCH_SOZU=target/peers/sozu cargo bench --bench load
#
# Needs cmake, a C++ compiler and libclang (BoringSSL, for Pingora), and protoc (sozu): on Debian `apt-get install cmake g++
# libclang-dev protobuf-compiler`. Takes ten minutes and 2 GB, below target/peers/build unless CARGO_TARGET_DIR is set.
set -eu
cd "$(dirname "$0")/.."
SOZU=2.3.3
out=$PWD/target/peers
build=${CARGO_TARGET_DIR:-$out/build}
mkdir -p "$out" "$build"

cargo build --release --locked --manifest-path benches/peers/pingora/Cargo.toml --target-dir "$build/pingora"
cp "$build/pingora/release/pingora" "$out/pingora"

# Its own repository builds it with lto and one unit too, and for such a processor; the feature is off by default.
case $(uname -m) in
    x86_64) flags="-Ctarget-feature=+sse3,+sse4.1,+sse4.2,+ssse3,+avx,+aes" ;;
    *) flags="" ;;
esac
RUSTFLAGS=$flags CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 CARGO_PROFILE_RELEASE_STRIP=symbols \
    cargo install sozu --version "$SOZU" --locked --features simd --force --no-track --root "$build/sozu-installed" --target-dir "$build/sozu"
cp "$build/sozu-installed/bin/sozu" "$out/sozu"
"$out/pingora" --version
"$out/sozu" --version | head -n 1
