#!/usr/bin/env bash
# Builds the CNI plugin as it is to be installed, and prints its path: one program without shared libraries, at a fixed address.
# With musl where Rust has its target, otherwise with glibc, whose start takes longer.
# usage: scripts/plugin.sh
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
  '') ;;
  -h|--help) sed -n '2,/^set/{/^# /s/^# //p}' "$0"; exit 0 ;;
  *) printf "plugin: unknown argument '%s' (see --help)\n" "$1" >&2; exit 1 ;;
esac

command -v cargo >/dev/null || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"

musl="$(uname -m)-unknown-linux-musl"
target=() folder=release flags=(-C relocation-model=static)
if [ -d "$(rustc --print target-libdir --target "$musl" 2>/dev/null)" ]; then
  target=(--target "$musl") folder=$musl/$folder
  # The build compiles libbpf, of which the plugin uses nothing: what comes of it is not linked, whatever C library it is for.
  export "CC_${musl//-/_}=${CC:-cc}"
else
  printf 'plugin: linked with glibc; to have it start sooner: rustup target add %s\n' "$musl" >&2
  flags+=(-C target-feature=+crt-static)
fi
cargo rustc --quiet --release "${target[@]}" --features programs --example podwire-cni -- "${flags[@]}"
printf '%s\n' "${CARGO_TARGET_DIR:-$PWD/target}/$folder/examples/podwire-cni"
