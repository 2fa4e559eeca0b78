#!/bin/bash
# The slow checks of make check; each prints its own findings, the last line says how many failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
base=${BUILD:-build}
meson=/usr/bin/meson
[ -x $meson ] || meson=meson
failed=()

step() { # step NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "$@" || failed+=("$name")
}

format() {
    local file
    local bad=0
    while IFS= read -r file; do
        clang-format --dry-run --Werror "$file" 2>/dev/null || { echo "$file: not as clang-format writes it"; bad=1; }
    done < <(find src tests -name '*.[ch]' | sort)
    return $bad
}

tidy() {
    tools/build.sh "$base" >/dev/null || return 1
    find src -name '*.c' -print0 | xargs -0 -n 8 -P "$(nproc)" clang-tidy -quiet -p "$base" 2>/dev/null | tee "$base/clang-tidy.log"
    ! grep -qE '(warning|error):' "$base/clang-tidy.log"
}

analyse() {
    CC=gcc tools/build.sh "$base-analyzer" -Dtests=false -Dc_args=-fanalyzer --werror >"$base/analyzer.log" ||
        { grep -A20 'error:' "$base/analyzer.log"; return 1; }
}

valgrind_units() {
    tools/build.sh "$base-test" >/dev/null || return 1
    "$meson" test -C "$base-test" --no-rebuild -t 30 --print-errorlogs \
        --wrap "$PWD/tools/tap.sh valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --suppressions=$PWD/tests/valgrind.supp"
}

fault_sweeps() {
    tools/build.sh "$base-test" >/dev/null || return 1
    TG_FULL=1 "$base-test/tests/unit/moai/test_moai_load_faults" || return 1
    TG_FULL=1 TENSORGUARD_BUILD=$base-test /usr/bin/python3 -m pytest -q -p no:cacheprovider -c tests/pytest.ini tests/e2e/test_fault_sweeps.py tests/e2e/test_hostile_worker.py
}

sanitized_programs() {
    CC=gcc tools/build.sh "$base-asan" -Db_sanitize=address,undefined >/dev/null || return 1
    TG_FULL=1 TENSORGUARD_BUILD=$base-asan /usr/bin/python3 -m pytest -q -p no:cacheprovider -c tests/pytest.ini tests/e2e
}

step lint tools/lint.py
step clang-format format
step clang-tidy tidy
step 'gcc -fanalyzer' analyse
step 'unit tests under valgrind' valgrind_units
step 'every call failing in turn' fault_sweeps
step 'programs under the sanitizers' sanitized_programs
printf '\n%d checks failed%s\n' "${#failed[@]}" "${failed[*]:+: ${failed[*]}}"
[ "${#failed[@]}" = 0 ]
