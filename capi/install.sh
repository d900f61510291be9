#!/bin/sh
# Builds the C library and installs it: libringfence.so.0 with versioned symbols, libringfence.a, ringfence.h, ringfence.pc.
#
#   PREFIX=/usr/local DESTDIR= LIBDIR=$PREFIX/lib INCLUDEDIR=$PREFIX/include PROFILE=release STRIP=yes capi/install.sh
#
# The shared library is linked by `cc` from the static one, not by rustc: rustc hands the linker a version script of its own,
# which GNU ld refuses to combine with ours and rust-lld applies so that our symbols stay unversioned.
set -eu
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
destdir=${DESTDIR:-}
libdir=${LIBDIR:-$prefix/lib}
includedir=${INCLUDEDIR:-$prefix/include}
profile=${PROFILE:-release}
cc=${CC:-cc}
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

case $profile in dev) out=debug ;; *) out=$profile ;; esac
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
soname=libringfence.so.${version%%.*}

log=$(mktemp)
stage=$(mktemp -d)
trap 'rm -rf "$log" "$stage"' EXIT
if ! cargo rustc --locked -q -p ringfence-capi --lib --crate-type staticlib --profile "$profile" -- \
    --print native-static-libs >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
grep -v 'native-static-libs\|Link against the following native artifacts\|^$' "$log" >&2 || true
native=$(sed -n 's/^note: native-static-libs: //p' "$log" | tail -n 1)
archive=$target/$out/libringfence_capi.a

cp "$archive" "$stage/libringfence.a"
if [ "${STRIP:-yes}" = yes ]; then
    strip --strip-debug "$stage/libringfence.a"
fi
# -z nodelete: threads and thread-local destructors of the library must not outlive its code after a dlclose.
# shellcheck disable=SC2086 # $native is a list of linker arguments
"$cc" -shared -o "$stage/libringfence.so.$version" \
    -Wl,--whole-archive "$stage/libringfence.a" -Wl,--no-whole-archive \
    -Wl,--version-script=capi/ringfence.map -Wl,-soname,"$soname" \
    -Wl,--gc-sections -Wl,--no-undefined -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now $native

sed -e "s|@PREFIX@|$prefix|g" -e "s|@LIBDIR@|$libdir|g" -e "s|@INCLUDEDIR@|$includedir|g" \
    -e "s|@VERSION@|$version|g" -e "s|@LIBS_PRIVATE@|$native|g" capi/ringfence.pc.in >"$stage/ringfence.pc"

install -d "$destdir$libdir/pkgconfig" "$destdir$includedir"
install -m 755 "$stage/libringfence.so.$version" "$destdir$libdir/libringfence.so.$version"
ln -sf "libringfence.so.$version" "$destdir$libdir/$soname"
ln -sf "$soname" "$destdir$libdir/libringfence.so"
install -m 644 "$stage/libringfence.a" "$destdir$libdir/libringfence.a"
install -m 644 include/ringfence.h "$destdir$includedir/ringfence.h"
install -m 644 "$stage/ringfence.pc" "$destdir$libdir/pkgconfig/ringfence.pc"
echo "installed ringfence $version below $destdir$prefix"
