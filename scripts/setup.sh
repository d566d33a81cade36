#!/usr/bin/env bash
# Installs what building, testing, demonstrating and benchmarking need on a Debian machine with Rust.
# usage: scripts/setup.sh [build] [test] [demo] [bench] [kernels]
# Installs only what is missing; asks for root only then.
set -euo pipefail

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

packages_for() {
  case "$1" in
    # libbpf-sys compiles libbpf against libelf and zlib; the eBPF programs need clang and the kernel's headers.
    build) echo gcc make pkg-config libelf-dev zlib1g-dev linux-libc-dev clang-19 ;;
    test)  echo iproute2 iputils-ping ;;
    demo)  echo iproute2 iputils-ping netcat-openbsd jq ;;
    bench) echo iproute2 containernetworking-plugins ;;
    kernels) echo qemu-system-x86 busybox-static cpio kmod jq xz-utils binutils ;;
    *) fail "unknown part '$1': build, test, demo, bench or kernels" ;;
  esac
}

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# A distribution without clang-19 gets its default clang, which has to be 14 or newer (build.rs says so otherwise).
available() { apt-cache show "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# What the CNI plugin is built for where there is a rustup to install it (scripts/plugin.sh).
musl() {
  command -v rustup >/dev/null || return 0
  local target
  target="$(uname -m)-unknown-linux-musl"
  rustup target list --installed | grep -qx "$target" || rustup target add "$target" ||
    printf 'setup: no %s: the plugin is linked with glibc\n' "$target" >&2
}

main() {
  command -v cargo >/dev/null || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  command -v cargo >/dev/null || fail "cargo not found: install Rust 1.95 or newer (https://rustup.rs)"
  local missing=() part package
  for part in build "$@"; do
    for package in $(packages_for "$part"); do
      installed "$package" || missing+=("$package")
    done
    [ "$part" != bench ] || musl
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "not a Debian machine: install the equivalents of: ${missing[*]}"
  printf 'setup: installing %s\n' "${missing[*]}"
  as_root apt-get update -qq
  available clang-19 || missing=("${missing[@]/clang-19/clang}")
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

main "$@"
