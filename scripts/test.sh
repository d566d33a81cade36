#!/usr/bin/env bash
# Installs what is missing, then lints, builds, and runs every test as root. Exit status 0 only if all of it passed.
# usage: scripts/test.sh [cargo test arguments]   e.g. scripts/test.sh --test maps_batch
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
fail() { printf 'test: %s\n' "$*" >&2; exit 1; }

# The tests make namespaces, devices and programs; without root they could only be skipped.
if [ "$(id -u)" != 0 ]; then
  exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR "$0" "$@"
fi

scripts/setup.sh test
[ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"

# Warnings of the C compiler are errors here, as are rustc's, clippy's and rustdoc's.
export PODWIRE_BPF_WERROR=1 CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

# What a test may not leave behind.
leftovers() {
  ip -o link show | awk -F': ' '{print "link", $2}'
  ip netns list | awk '{print "netns", $1}'
  find /sys/fs/bpf -mindepth 1 2>/dev/null | sed 's/^/pin /'
}

step "bpffs"
grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf

if [ $# -gt 0 ]; then
  cargo build --all-features --examples
  exec cargo test --all-features "$@"
fi

step "format"
cargo fmt --check
step "clippy"
cargo clippy --quiet --all-targets --all-features -- -D warnings
cargo clippy --quiet -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features
step "build"
cargo build --quiet --all-features --examples
step "tests"
before=$(leftovers | sort)
cargo test --all-features --no-fail-fast
step "leftovers"
left=$(comm -13 <(printf '%s\n' "$before") <(leftovers | sort))
[ -z "$left" ] || fail "the tests left behind:
$left"
step "all passed"
