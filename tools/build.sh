#!/bin/bash
# Configure with meson on what tools/deps.sh found, then build.
#
#   tools/build.sh DIR [MESON-OPTION]...        (CC chooses the compiler of a new folder)
#   tools/build.sh --configure-only DIR [MESON-OPTION]...
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
only_configure=0
if [ "$1" = --configure-only ]; then
    only_configure=1
    shift
fi
dir=$1
shift

# Debian's own meson before one that a private Python brought along: it runs on the Python that has our packages.
meson=/usr/bin/meson
[ -x $meson ] || meson=meson

found=$("$root/tools/deps.sh" env)
eval "$found"
export PKG_CONFIG_PATH="$TG_OPENSSL_PKGCONFIG${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"

args=("-Dopenssl_private_libdir=$TG_OPENSSL_LIBDIR" "-Donnxruntime_prefix=$TG_ORT_PREFIX"
    "-Dopenssl_program=$TG_OPENSSL_BIN" "$@")
told="$PKG_CONFIG_PATH ${CC:-} ${args[*]}"
stamp=$dir/tensorguard-configured
if [ ! -e "$dir/build.ninja" ]; then
    "$meson" setup "$dir" "$root" "${args[@]}"
    printf '%s\n' "$told" >"$stamp"
elif [ "$told" != "$(cat "$stamp" 2>/dev/null)" ]; then
    # Another OpenSSL or compiler cannot be changed in place.
    "$meson" setup --wipe "$dir" "$root" "${args[@]}"
    printf '%s\n' "$told" >"$stamp"
fi
[ "$only_configure" = 1 ] || ninja -C "$dir"
