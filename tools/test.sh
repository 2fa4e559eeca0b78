#!/bin/bash
# The whole test run: make test. Its last line is "N passed, N failed".
#
#   tools/test.sh [PART]...      parts: unit sanitized clang python (default: all)
#
# unit       cmocka tests, compiled with gcc (warnings are errors with gcc 12)
# sanitized  the same under AddressSanitizer and UndefinedBehaviorSanitizer
# clang      the same compiled with clang, where clang is there (warnings are errors with clang 14)
# python     pytest: tests/meta (house rules) and tests/e2e (programs from outside), on unit's build; files side by side, because
#            much of their time is waiting for timeouts, retries and renewals to come
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
[ $# -gt 0 ] || set -- unit sanitized clang python
# Folders of its own, so that a user's build/ keeps its options.
base=${BUILD:-build}
meson=/usr/bin/meson
[ -x $meson ] || meson=meson
results=()
# How many files of tests run at once: as many as there are processors, but what each starts needs memory (some a few GiB).
at_once=$(nproc)
[ "$at_once" -ge 2 ] || at_once=2
[ "$at_once" -le 4 ] || at_once=4

title() { printf '\n== %s\n' "$*"; }

werror_for() { # werror_for COMPILER MAJOR: warnings are errors with the compilers we develop with, not with every future one
    local major
    major=$($1 -dumpversion 2>/dev/null | cut -d. -f1)
    [ "$major" = "$2" ] && printf '%s' --werror
    return 0
}

meson_part() { # meson_part NAME DIR TIMEOUT-FACTOR [MESON-OPTION]...
    local name=$1 dir=$2 slower=$3 rc
    shift 3
    title "$name ($dir)"
    # What is left of an earlier run must not be counted.
    rm -f "$dir"/meson-logs/testlog*
    if ! tools/build.sh "$dir" "$@"; then
        results+=("$name:build-failed:meson:$dir")
        return
    fi
    "$meson" test -C "$dir" --no-rebuild --print-errorlogs -t "$slower" --wrap "$root/tools/tap.sh"
    rc=$?
    results+=("$name:$rc:meson:$dir")
}

for part in "$@"; do
    case $part in
    unit) CC=gcc meson_part unit "$base-test" 1 $(werror_for gcc 12) ;;
    sanitized) CC=gcc meson_part sanitized "$base-asan" 6 -Db_sanitize=address,undefined ;;
    clang)
        if command -v clang >/dev/null; then
            CC=clang meson_part clang "$base-clang" 1 $(werror_for clang 14)
        else
            title "clang: not installed, left out (make check brings it)"
        fi
        ;;
    python)
        level=$(PYTHONPATH=tests /usr/bin/python3 -c 'import programs; print(programs.protection())')
        title "python (tests/meta, tests/e2e on $base-test; workers are asked for memory protection: $level)"
        CC=gcc tools/build.sh "$base-test" $(werror_for gcc 12) >"$base-test.log" 2>&1 || tail -20 "$base-test.log"
        rm -f "$base-test.log" "$base-test/pytest.xml"
        mkdir -p "$base-test"
        TENSORGUARD_BUILD=$base-test /usr/bin/python3 -m pytest -q -ra -n "$at_once" --dist loadfile -p no:cacheprovider \
            -c tests/pytest.ini --junitxml="$base-test/pytest.xml" tests/meta tests/e2e
        results+=("python:$?:pytest:$base-test/pytest.xml")
        ;;
    *)
        echo "test.sh: no part '$part'" >&2
        exit 2
        ;;
    esac
done

exec /usr/bin/python3 tools/sum.py "${results[@]}"
