#!/bin/bash
# Everything TensorGuard builds on: found, installed or built. Safe to repeat; quick when nothing is missing.
#
#   tools/deps.sh [GROUP]...   bring in what the groups need and is missing (default: build test)
#   tools/deps.sh env          print where the private parts are, for tools/build.sh
#
# Groups: build, test, fuzz, check, bench. Why it is done this way: docs/adr/001-dependencies.md.
# OPENSSL_PREFIX and ONNXRUNTIME_PREFIX name installations to use instead; TENSORGUARD_DEPS names the
# folder for what is built here (default: .deps in the checkout), so that several checkouts can share it.
set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Absolute and fixed, because both end up in the programs' library search path.
deps=${TENSORGUARD_DEPS:-$root/.deps}
case $deps in /*) ;; *) deps=$PWD/$deps ;; esac
arch=$(dpkg --print-architecture 2>/dev/null || uname -m)

openssl_min=3.5
ort_min=1.21
# ONNX Runtime 1.28 is the last line without telemetry; 1.27.0 is the release tried with the headers below.
ort_npm=onnxruntime-node@1.27.0
ort_npm_sha512=QEzGwrvNBgv4uPVdnbHsOGG4G6T96mdlcFI8aAKPjMU8wOPpVocPXb6k3QGkaZagVTv2G9Bnnbo6Z3JdXr1fQw==
donor=trixie # the Debian release whose OpenSSL source and ONNX Runtime headers an older one takes

# what proves that it is there            | Debian's package
needs_build='
cmd:gcc                                   | gcc
file:/usr/include/stdio.h                 | libc6-dev
cmd:make                                  | make
cmd:meson                                 | meson
cmd:ninja                                 | ninja-build
cmd:pkg-config                            | pkg-config
file:/usr/include/event2/bufferevent_ssl.h | libevent-dev
glob:/usr/include/*/curl/curl.h /usr/include/curl/curl.h | libcurl4-openssl-dev
file:/usr/include/jansson.h               | libjansson-dev
file:/usr/include/sqlite3.h               | libsqlite3-dev
file:/usr/include/seccomp.h               | libseccomp-dev
file:/usr/include/mimalloc.h              | libmimalloc-dev
file:/usr/include/cmocka.h                | libcmocka-dev
cmd:python3                               | python3'
# multi-buffer hashing (libipsec-mb) is x86-64's; elsewhere libcrypto hashes
[ "$arch" != amd64 ] || needs_build+='
file:/usr/include/intel-ipsec-mb.h        | libipsec-mb-dev'
needs_test='
py:pytest                                 | python3-pytest
py:numpy                                  | python3-numpy
py:pytest_timeout                         | python3-pytest-timeout
py:xdist                                  | python3-pytest-xdist
cmd:strace                                | strace
cmd:gdb                                   | gdb
cmd:g++                                   | g++
cmd:clang                                 | clang
cmd:valgrind                              | valgrind'
needs_fuzz='
cmd:clang                                 | clang
glob:/usr/lib/*/clang/*/lib/linux/libclang_rt.fuzzer-*.a /usr/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a | libclang-rt-dev'
needs_check='
cmd:clang                                 | clang
cmd:clang-format                          | clang-format
cmd:clang-tidy                            | clang-tidy'
needs_bench='
cmd:age                                   | age'

say() { printf 'deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

present() { # present KIND:WHAT
    local what=${1#*:}
    case $1 in
    cmd:*) command -v "$what" >/dev/null ;;
    file:*) [ -e "$what" ] ;;
    glob:*) compgen -G "${what%% *}" >/dev/null || { [ "$what" != "${what#* }" ] && present "glob:${what#* }"; } ;;
    py:*) /usr/bin/python3 -c "import importlib.util as u, sys; sys.exit(u.find_spec('$what') is None)" 2>/dev/null ;;
    esac
}

missing_packages() { # missing_packages GROUP... -> package names
    local group line
    for group in "$@"; do
        local table=needs_$group
        while IFS='|' read -r line package; do
            line=${line%"${line##*[! ]}"}
            [ -z "$line" ] || present "$line" || printf '%s ' "${package# }"
        done <<<"${!table}"
    done
}

as_root=()  # how to become root; set by find_root

find_root() {
    [ "$(id -u)" != 0 ] || return 0
    command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; } && as_root=(sudo)
}

install_packages() { # install_packages PACKAGE...
    local line="apt-get install --no-install-recommends -y $*"
    command -v apt-get >/dev/null || die "this machine has no apt; install by its own means what Debian calls: $*"
    find_root || die "not root and no sudo. Run this as root, then try again:
    apt-get update && $line"
    say "installing $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -qq \
        install --no-install-recommends -y "$@" >/dev/null || die "apt failed; the line was: $line"
}

distribution_has() { # distribution_has PACKAGE VERSION: true when the machine's own apt offers that or newer
    local version
    command -v apt-cache >/dev/null || return 1
    version=$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p')
    if [ -z "$version" ] || [ "$version" = "(none)" ]; then
        # A machine whose lists were never fetched knows no package at all: go by the release.
        apt-cache show libc6-dev >/dev/null 2>&1 && return 1
        [ "$(. /etc/os-release && echo "${ID:-}-$((${VERSION_ID:-0} >= 13))")" = debian-1 ]
        return
    fi
    dpkg --compare-versions "$version" ge "$2"
}

private_packages() { # what the two parts that may have to be made here need, installed or not
    openssl_prefix >/dev/null || if distribution_has libssl-dev $openssl_min; then
        echo 'file:/usr/include/openssl/evp.h | libssl-dev
cmd:openssl | openssl'
    else
        echo 'cmd:dpkg-source | dpkg-dev
cmd:perl | perl'
    fi
    ort_prefix >/dev/null || if distribution_has libonnxruntime-dev $ort_min; then
        echo 'file:/usr/include/onnxruntime/onnxruntime_c_api.h | libonnxruntime-dev'
    else
        echo 'cmd:npm | npm'
    fi
}

# ---- a private apt: another release of the same mirror, by the same keyring, without touching the machine

private_apt() { # private_apt apt-get|apt-cache COMMAND ARGS... : over $deps/apt
    local dir=$deps/apt tool=$1
    shift
    # The download user cannot write below a private folder; what is fetched is checked by signature and hash all the same.
    "$tool" -qq -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)" "$@"
}

donor_sources() { # donor_sources RELEASE: sources.list lines for $donor where the machine has RELEASE
    local uri suite signed
    # apt's own reading of the machine's sources, whichever format they are in, whether or not it has their lists.
    apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(SIGNED_BY)' 'Created-By: Packages' 'Component: main' |
        sort -u | while read -r uri suite signed; do
        case $suite in
        "$1" | "$1-security") suite=$donor${suite#"$1"} ;;
        *) continue ;;
        esac
        # Older releases of apt do not say which keyring it is.
        case $signed in /*) ;; *) signed=/usr/share/keyrings/debian-archive-keyring.gpg ;; esac
        printf '%s [signed-by=%s] %s %s main\n' deb "$signed" "$uri" "$suite" deb-src "$signed" "$uri" "$suite"
    done
}

private_apt_setup() {
    local dir=$deps/apt release
    [ -e "$dir/ready" ] && return
    command -v apt-get >/dev/null || die "no apt here: give OPENSSL_PREFIX (OpenSSL >= $openssl_min) and ONNXRUNTIME_PREFIX (>= $ort_min)"
    release=$(. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}")
    [ "${release% *}" = debian ] || die "not Debian: give OPENSSL_PREFIX (OpenSSL >= $openssl_min) and ONNXRUNTIME_PREFIX (>= $ort_min)"
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/status"
    (umask 077 && donor_sources "${release#* }" >"$dir/sources.list")
    [ -s "$dir/sources.list" ] || die "apt has no source for Debian ${release#* } main to derive $donor from"
    private_apt apt-get update >&2 || die "could not read $donor from the machine's Debian mirror"
    touch "$dir/ready"
}

# ---- OpenSSL

openssl_prefix() { # where OpenSSL is: empty when the system's own will do; fails when there is none
    local pc
    if [ -n "${OPENSSL_PREFIX:-}" ]; then
        printf '%s' "$OPENSSL_PREFIX"
        return
    fi
    if pkg-config --atleast-version=$openssl_min libcrypto libssl 2>/dev/null; then return; fi
    for pc in $(compgen -G "$deps/openssl-*-$arch/lib/pkgconfig/libcrypto.pc" | sort -rV); do
        pc=${pc%/lib/pkgconfig/libcrypto.pc}
        # A folder that was moved has the old place written into its libraries.
        if [ -e "$pc/complete" ] && grep -qxF "prefix=$pc" "$pc/lib/pkgconfig/libcrypto.pc"; then
            printf '%s' "$pc"
            return
        fi
    done
    return 1
}

openssl_sources() { # source versions that $donor's signed lists name and the build can use, newest first
    local version
    # 4.x has another soname: Debian's libcurl and libevent could not run on it.
    private_apt apt-cache showsrc openssl | sed -n 's/^Version: //p' | sort -uV | tac | while read -r version; do
        ! dpkg --compare-versions "$version" ge "$openssl_min" || dpkg --compare-versions "$version" ge 4~ ||
            printf '%s\n' "$version"
    done
}

fetch_openssl() { # fetch_openssl FOLDER: the newest that the mirror hands out (it may lag behind its own lists)
    local version
    for version in $(openssl_sources); do
        rm -f "$1"/openssl_*
        (cd "$1" && private_apt apt-get source --only-source --download-only "openssl=$version" >&2) && return
        say "the mirror lists OpenSSL $version and does not hand it out"
    done
    return 1
}

build_openssl() {
    local dsc version prefix work=$deps/work/openssl log=$deps/openssl-build.log
    private_apt_setup
    rm -rf "$work" && mkdir -p "$work"
    say "OpenSSL >= $openssl_min is not here: fetching Debian $donor's source"
    fetch_openssl "$work" || die "the machine's Debian mirror hands out no OpenSSL >= $openssl_min source of $donor's: try again later, or give OPENSSL_PREFIX"
    dsc=$(compgen -G "$work/openssl_*.dsc") || die "apt fetched no OpenSSL source"
    version=$(sed -n 's/^Version: //p' "$dsc" | head -1 | tr -c 'A-Za-z0-9.+\n-' .)
    prefix=$deps/openssl-$version-$arch
    # apt has checked the archive's signature and every hash down to these files.
    dpkg-source --no-check -x "$dsc" "$work/tree" >"$log" 2>&1 || die "dpkg-source failed; see $log"
    say "building OpenSSL $version into $prefix (about 4 minutes on 2 cores; log: $log)"
    # Same sonames and symbols as Debian's, so that libcurl and libevent run on it; Debian's configuration and certificates.
    if ! (cd "$work/tree" &&
        ./Configure --prefix="$prefix" --libdir=lib --openssldir=/usr/lib/ssl shared no-tests no-docs no-legacy \
            no-idea no-mdc2 no-rc5 no-ssl3 no-ssl3-method enable-rfc3779 enable-cms \
            $(case $arch in amd64 | arm64) echo enable-ec_nistp_64_gcc_128 ;; esac) \
            '-Wl,-rpath,$(LIBRPATH)' -Wl,--disable-new-dtags &&
        make -s -j"$(nproc)" build_sw && make -s install_sw DESTDIR="$work/image") >>"$log" 2>&1; then
        tail -5 "$log" >&2
        die "building OpenSSL failed; see $log"
    fi
    touch "$work/image$prefix/complete"
    rm -rf "$prefix" "$work/image$prefix"/lib/*.a
    mv "$work/image$prefix" "$prefix"
    rm -rf "$work"
}

# ---- ONNX Runtime

ort_prefix() { # as openssl_prefix
    local dir=$deps/onnxruntime-${ort_npm#*@}-$arch
    if [ -n "${ONNXRUNTIME_PREFIX:-}" ]; then
        printf '%s' "$ONNXRUNTIME_PREFIX"
    elif pkg-config --atleast-version=$ort_min libonnxruntime 2>/dev/null; then
        return 0
    elif [ -e "$dir/complete" ]; then
        printf '%s' "$dir"
    else
        return 1
    fi
}

fetch_ort() {
    local work=$deps/work/ort prefix=$deps/onnxruntime-${ort_npm#*@}-$arch so tgz sum
    case $arch in
    amd64) so=package/bin/napi-v6/linux/x64/libonnxruntime.so.1 ;;
    arm64) so=package/bin/napi-v6/linux/arm64/libonnxruntime.so.1 ;;
    *) die "no ONNX Runtime is published for $arch: give ONNXRUNTIME_PREFIX" ;;
    esac
    private_apt_setup
    rm -rf "$work" && mkdir -p "$work/image/lib" "$work/image/include"
    say "ONNX Runtime >= $ort_min is not here: fetching $ort_npm and Debian $donor's headers"
    (cd "$work" && npm pack --loglevel=error --ignore-scripts "$ort_npm" >/dev/null) || die "npm pack $ort_npm failed: is npm's registry reachable (npm config get registry)?"
    tgz=$(compgen -G "$work/onnxruntime-node-*.tgz") || die "npm pack made no archive"
    sum=$(/usr/bin/python3 -c 'import base64, hashlib, sys
print(base64.b64encode(hashlib.sha512(open(sys.argv[1], "rb").read()).digest()).decode())' "$tgz")
    [ "$sum" = "$ort_npm_sha512" ] || die "$ort_npm has SHA-512 $sum, not the one pinned in tools/deps.sh"
    tar -xzf "$tgz" -C "$work" "$so"
    mv "$work/$so" "$work/image/lib/libonnxruntime.so.1"
    ln -s libonnxruntime.so.1 "$work/image/lib/libonnxruntime.so"
    (cd "$work" && private_apt apt-get download libonnxruntime-dev >&2) || die "could not fetch libonnxruntime-dev"
    dpkg-deb -x "$work"/libonnxruntime-dev_*.deb "$work/headers"
    cp "$work"/headers/usr/include/onnxruntime/*.h "$work/image/include/"
    touch "$work/image/complete"
    rm -rf "$prefix"
    mv "$work/image" "$prefix"
    rm -rf "$work"
}

# ----

print_env() {
    local ssl ort pc=
    ssl=$(openssl_prefix) || die "no OpenSSL >= $openssl_min yet: run make deps"
    ort=$(ort_prefix) || die "no ONNX Runtime >= $ort_min yet: run make deps"
    if [ -n "$ssl" ]; then
        pc=$(dirname "$(compgen -G "$ssl/lib*/pkgconfig/libcrypto.pc" | head -1)")
        [ -e "$pc/libcrypto.pc" ] || die "$ssl holds no lib/pkgconfig/libcrypto.pc"
    fi
    printf 'TG_OPENSSL_PKGCONFIG=%q\nTG_OPENSSL_LIBDIR=%q\nTG_OPENSSL_BIN=%q\nTG_ORT_PREFIX=%q\n' \
        "$pc" "${pc%/pkgconfig}" "${ssl:-/usr}/bin/openssl" "$ort"
}

main() {
    local packages
    if [ "${1:-}" = env ]; then
        print_env
        return
    fi
    [ $# -gt 0 ] || set -- build test
    packages=$(missing_packages "$@")
    if [ -z "$packages" ] && openssl_prefix >/dev/null && ort_prefix >/dev/null; then return; fi
    mkdir -p "$deps"
    exec 9>"$deps/.lock"
    flock 9
    if find_root && command -v apt-get >/dev/null; then
        "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 -qq update || say "apt-get update failed; going on with the lists there are"
    fi
    needs_private=$(private_packages)
    packages=$(missing_packages "$@" private)
    [ -z "$packages" ] || install_packages $packages
    openssl_prefix >/dev/null || build_openssl
    ort_prefix >/dev/null || fetch_ort
    say "ready"
}

[ "${BASH_SOURCE[0]}" != "$0" ] || main "$@"
