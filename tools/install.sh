#!/bin/bash
# Installs what was built, and takes it away again.
#
#   tools/install.sh DIR                 (DESTDIR is put before every path)
#   tools/install.sh --uninstall DIR     removes the files the last install from DIR listed
set -euo pipefail

if [ "$1" = --uninstall ]; then
    list=$2/installed-files.txt
    [ -e "$list" ] || { echo "install.sh: nothing was installed from $2" >&2; exit 1; }
    while IFS= read -r file; do
        rm -f -- "$file"
        rmdir --ignore-fail-on-non-empty -p -- "$(dirname "$file")" 2>/dev/null || true
    done <"$list"
    rm -f "$list"
    exit 0
fi

dir=$1
meson=/usr/bin/meson
[ -x $meson ] || meson=meson
$meson install -C "$dir" --no-rebuild >/dev/null
# Meson's own log names each file and each folder it made; lines with # are its comments.
grep -v '^#' "$dir/meson-logs/install-log.txt" | while IFS= read -r path; do
    [ -d "$path" ] || printf '%s\n' "$path"
done | tee "$dir/installed-files.txt"
