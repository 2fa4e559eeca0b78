#!/bin/bash
# Builds the libFuzzer harnesses with clang and runs each for FUZZ_SECONDS (default 60).
#
#   tools/fuzz.sh [NAME]...      only these harnesses
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${BUILD:-build}-fuzz
# The libraries are instrumented too: without that libFuzzer sees nothing of what an input reaches.
CC=clang tools/build.sh "$dir" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
    -Dc_args=-fsanitize=fuzzer-no-link
[ $# -gt 0 ] || set -- $(cd "$dir/tests/fuzz" && compgen -G 'fuzz_*' | grep -vE '\.' | sed 's/^fuzz_//' | sort)
[ $# -gt 0 ] || { echo "fuzz.sh: no harness was built" >&2; exit 1; }
failed=0
for name in "$@"; do
    mkdir -p "$dir/corpus/$name"
    printf '== %s\n' "$name"
    "$dir/tests/fuzz/fuzz_$name" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$dir/crash-$name-" "$dir/corpus/$name" "tests/fuzz/corpus/$name" 2>&1 |
        grep -E 'ERROR|SUMMARY|stat::number_of_executed|artifact|runtime error' || true
    [ "${PIPESTATUS[0]}" = 0 ] || failed=$((failed + 1))
done
echo "$# harnesses, $failed failed"
[ "$failed" = 0 ]
