#!/bin/bash
# Builds the libFuzzer harnesses with clang and runs each for FUZZ_SECONDS (default 60), then shows a table.
# Exits 1 when a harness found something; the table's last lines name the files that reproduce it.
#
#   tools/fuzz.sh [NAME]...      only these harnesses
#   tools/fuzz.sh --list         their names
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${BUILD:-build}-fuzz
# The libraries are instrumented too: without that libFuzzer sees nothing of what an input reaches.
CC=clang tools/build.sh "$dir" -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false \
    -Dc_args=-fsanitize=fuzzer-no-link >"$dir.log" 2>&1 || { cat "$dir.log" >&2; exit 1; }
rm -f "$dir.log"
all=$(cd "$dir/tests/fuzz" && compgen -G 'fuzz_*' | grep -vE '\.' | sed 's/^fuzz_//' | sort)
[ -n "$all" ] || { echo "fuzz.sh: no harness was built" >&2; exit 1; }
[ "${1:-}" != --list ] || { echo "$all"; exit 0; }
# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $all
seconds=${FUZZ_SECONDS:-60}
case $seconds in *[!0-9]* | '' | 0) echo "fuzz.sh: FUZZ_SECONDS must be a number of seconds" >&2; exit 2 ;; esac
rm -rf "$dir/seeds"
/usr/bin/python3 tests/fuzz/seeds_from_kit.py "$dir/seeds" >/dev/null
mkdir -p "$dir/logs"

last() { # last PATTERN FILE: the number behind the pattern in the last line that has it, or -
    sed -nE "s/.*$1([0-9]+).*/\1/p" "$2" | tail -1 | grep . || echo -
}

failed=0
rows=()
found=()
for name in "$@"; do
    program=$dir/tests/fuzz/fuzz_$name
    [ -x "$program" ] || { echo "fuzz.sh: no harness '$name' (--list names them)" >&2; exit 2; }
    log=$dir/logs/$name.log
    corpora=("$dir/corpus/$name" "tests/fuzz/corpus/$name")
    [ ! -d "$dir/seeds/$name" ] || corpora+=("$dir/seeds/$name")
    options=(-max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$dir/crash-$name-")
    case $name in tgsp_* | oip | control | agent_control | wire) options+=(-dict=tests/fuzz/json.dict) ;; esac
    mkdir -p "$dir/corpus/$name"
    before=$(find "$dir/corpus/$name" -type f | wc -l)
    printf '%s, %s s\n' "$name" "$seconds" >&2
    state=clean
    if ! "$program" "${options[@]}" "${corpora[@]}" >"$log" 2>&1; then
        state=FAILED
        failed=$((failed + 1))
        found+=("$name: $(grep -m1 -E '^SUMMARY|runtime error|ERROR: ' "$log" || echo 'no words; see the log')")
        found+=("  log $log" "  $(grep -oE 'Test unit written to .*' "$log" | tail -1 | sed 's/Test unit written to/again:/' || true)")
    fi
    new=$(($(find "$dir/corpus/$name" -type f | wc -l) - before))
    rows+=("$(printf '%-18s %12s %9s %8s %8s %7s  %s' "$name" "$(last 'stat::number_of_executed_units: *' "$log")" \
        "$(last 'stat::average_exec_per_sec: *' "$log")" "$(last ' cov: ' "$log")" "$(last ' ft: ' "$log")" "$new" $state)")
done
printf '\n%-18s %12s %9s %8s %8s %7s\n' harness runs runs/s edges features new
printf '%s\n' "${rows[@]}"
[ "$failed" = 0 ] || printf '%s\n' "" "${found[@]}"
printf '\n%s harnesses, %s s each, %s failed\n' $# "$seconds" "$failed"
[ "$failed" = 0 ]
