#!/bin/sh
# How well the tests of src/core hold it: cargo-mutants changes one thing at a time (an operator, a returned value, a
# match arm) and counts how many such changes no test notices. src/core names only std, http and bytes, so it is copied into a
# crate of its own, where a mutant costs seconds. Each file is judged by the tests of its own module alone.
#
#   scripts/mutants.sh                   the policies
#   scripts/mutants.sh breaker budget    these files of src/core
#   MUTANTS_LIST=1 scripts/mutants.sh    only counts them
#   MUTANTS_MORE=--iterate scripts/mutants.sh breaker    only those that were missed the last time
#   MUTANTS_TESTS="--skip overload --skip mix" scripts/mutants.sh gradient    without these tests
#
# Needs `cargo install cargo-mutants --locked`. Writes to target/mutants/, one folder a file, and prints a table.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
crate=$root/target/mutants/crate
policies="breaker budget bucket keyed admission gradient hold balance backoff deadline retry window eject hedge scope store dependency"
files=${*:-$policies}

mkdir -p "$crate/src"
rm -rf "$crate/src/core"
cp -R src/core "$crate/src/core"
cp Cargo.lock "$crate/Cargo.lock"
echo 'pub mod core;' > "$crate/src/lib.rs"
{
    printf '[package]\nname = "outrigger"\nversion = "0.1.0"\nedition = "2024"\n\n[workspace]\n\n[dependencies]\n'
    grep -E '^(http|bytes) = ' Cargo.toml
    printf '\n[dev-dependencies]\n'
    grep -E '^governor = ' Cargo.toml
    printf '\n[profile.dev]\ndebug = false\nopt-level = 1\n'
} > "$crate/Cargo.toml"

cd "$crate"
if [ -n "${MUTANTS_LIST:-}" ]; then
    for file in $files; do
        printf '%s\t%s\n' "$file" "$(cargo mutants --list -f "src/core/$file.rs" -f "src/core/$file/*.rs" | wc -l)"
    done
    exit
fi
# What does not pass unchanged can show nothing.
cargo test --quiet --lib
lines() { if [ -f "$1" ]; then wc -l < "$1"; else echo 0; fi; }
table="| file | mutants | caught | of these by timeout | missed | not compiled |
|---|---|---|---|---|---|"
for file in $files; do
    out=$root/target/mutants/$file
    mkdir -p "$out"
    # 2 and 3 mean that some were missed or took too long: the table says so.
    cargo mutants --in-place --baseline skip --timeout 30 ${MUTANTS_MORE:-} --no-shuffle --colors never --output "$out" \
        -f "src/core/$file.rs" -f "src/core/$file/*.rs" -e '**/tests.rs' -- --lib "core::$file" -- ${MUTANTS_TESTS:-} || [ $? -le 3 ]
    found=$out/mutants.out
    late=$(lines "$found/timeout.txt")
    caught=$(($(lines "$found/caught.txt") + late))
    missed=$(lines "$found/missed.txt")
    unviable=$(lines "$found/unviable.txt")
    table="$table
| \`$file\` | $((caught + missed + unviable)) | $caught | $late | $missed | $unviable |"
    echo "$table" > "$root/target/mutants/table.md"
done
echo "$table"
