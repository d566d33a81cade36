#!/usr/bin/env bash
# Installs what is missing, builds in release, runs every bench, and ends with one line a figure:
#   bench: NAME VALUE LIMIT ok|over
# usage: scripts/bench.sh [--quick]
# Exit status 0 if every bench ran and printed its figures, also when some are over their limit; 1 if one did not.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
fail() { printf 'bench: %s\n' "$*" >&2; exit 1; }

effort=()
case "${1-}" in
  '') ;;
  --quick) effort=(--quick) ;;
  -h|--help) sed -n '2,/^set/{/^# /s/^# //p}' "$0"; exit 0 ;;
  *) fail "unknown argument '$1' (see --help)" ;;
esac

# Namespaces, devices and programs are made and measured.
if [ "$(id -u)" != 0 ]; then
  exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR "$0" "$@"
fi

scripts/setup.sh bench
[ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"

# Every bench that prints figures, and the figures that are wanted in the end.
benches=(map_ratios datapath endpoints policy_swap cni tcp_rr)
figures=(
  map-lookup-vs-raw map-lookup-vs-aya map-batch-vs-raw map-batch-vs-iterate
  pod-to-pod-v4-vs-floor pod-to-pod-v6-vs-floor
  established-v4-vs-floor established-v6-vs-floor reply-v4-vs-floor reply-v6-vs-floor
  new-flow-vs-floor-new new-flow-v6-vs-floor-new policy-drop-vs-floor policy-drop-first-vs-floor
  policy-drop-scan-vs-floor
  established-16k-flows-vs-floor established-10k-rules-vs-1
  endpoint-create-p99-ms endpoint-1000th-vs-1st endpoint-regenerate-p99-ms agent-start-s agent-adopt-1000-s
  policy-swap-1000-ms identity-500-ms
  cni-add-vs-ptp cni-del-vs-ptp
  tcp-rr-vs-veth
)

step "bpffs"
grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf

step "build"
cargo build --release --features programs --example podwire-agent
scripts/plugin.sh
cargo bench --all-features --no-run

output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=()

run() {
  step "$1"
  cargo bench --quiet --all-features --bench "$@" 2>&1 | tee -a "$output" || true
}

for bench in "${benches[@]}"; do
  run "$bench" -- "${effort[@]}"
done

# Not figures: criterion's tables of map operations, addresses by the hundred thousand, compiled policies, collected connections.
if [ ${#effort[@]} = 0 ]; then
  for bench in maps ipam policy collect; do
    step "$bench"
    cargo bench --quiet --all-features --bench "$bench" || failed+=("$bench")
  done
fi

step "machine"
printf '%s, %s CPUs, Linux %s, %s\n' \
  "$(sed -n 's/^model name[[:space:]]*: //p;' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)" "$(date -I)"

step "figures"
for figure in "${figures[@]}"; do
  grep "^bench: $figure " "$output" | tail -n 1 || failed+=("$figure")
done
[ ${#failed[@]} = 0 ] || fail "did not run: ${failed[*]}"
