#!/usr/bin/env bash
# A node on which pods talk, from nothing to nothing: installs what is missing, builds, starts the agent in a network namespace
# of its own, attaches two pods through the CNI plugin, shows them talking, kills the agent under traffic, cleans up, and
# compares the namespace with what it was before. Exit status 0 only if every step did what it should.
# usage: scripts/demo.sh [--attach-mode auto|tcx|clsact]
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "") MODE=auto ;;
  --attach-mode) MODE=${2:?--attach-mode needs auto, tcx or clsact} ;;
  -h|--help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
  *) echo "demo: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac
if [ "$(id -u)" != 0 ]; then
  exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR "$0" "$@"
fi

# ---- names: nothing of the machine's own is touched but these ----
TAG=pwdemo$$
NODE=$TAG-node PODS=("$TAG-client" "$TAG-server") OUTSIDE=$TAG-outside
RUN=/run/$TAG BPF=/run/$TAG/bpf STATE=/run/$TAG/state SOCKET=/run/$TAG/podwire.sock
AGENT= MONITOR=

bold() { if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
ok() { printf '   ok: %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; [ ! -f "$RUN/agent.log" ] || tail -n 20 "$RUN/agent.log" >&2; exit 1; }
on_node() { nsenter --net="/run/netns/$NODE" "$@"; }
# In the background it must be the process itself that $! names, not a shell around it.
spawn_on_node() { exec nsenter --net="/run/netns/$NODE" "$@"; }
in_pod() { ip netns exec "$1" "${@:2}"; }
podwire() { on_node "$BIN/podwire" --socket "$SOCKET" "$@"; }

tear_down() {
  for process in $AGENT $MONITOR; do kill "$process" 2>/dev/null || true; done
  for ns in "${PODS[@]}" "$NODE" "$OUTSIDE"; do ip netns delete "$ns" 2>/dev/null || true; done
  ! mountpoint -q "$BPF" || umount "$BPF" || true
  rm -rf "$RUN" "/etc/netns/$NODE"
}
trap tear_down EXIT

wait_for() { # what, command...
  local what=$1; shift
  local deadline=$((SECONDS + 20))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "$what did not happen within 20 s"
    read -rt 0.05 <> <(:) || true
  done
}

picture() { on_node ip -o link; on_node ip -o addr; on_node ip route; on_node ip -6 route
            on_node sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.fib_multipath_use_neigh; }
stable_picture() { picture | sed -E 's/ (valid_lft|preferred_lft) [^ ]+//g; s/ qlen [0-9]+//'; }

start_agent() {
  RUST_LOG=info spawn_on_node "$BIN/podwire-agent" --node-name demo-node --ipv4-range 10.30.0.0/24 --ipv6-range fd00:30::/120 \
    --device eth0 --attach-mode "$MODE" --bpf-root "$BPF" --state-dir "$STATE" --socket "$SOCKET" >>"$RUN/agent.log" 2>&1 &
  AGENT=$!
  wait_for "the agent's start" podwire status --brief
}

cni() { # verb namespace
  printf '{"cniVersion":"1.1.0","name":"demo","type":"podwire-cni","socket":"%s"}' "$SOCKET" |
    on_node env CNI_COMMAND="$1" CNI_CONTAINERID="$2" CNI_NETNS="/run/netns/$2" CNI_IFNAME=eth0 CNI_PATH="$BIN" \
      CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=$2" "$BIN/podwire-cni"
}

bold "Set up and build"
scripts/setup.sh demo
[ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
cargo build --all-features --example podwire --example podwire-agent --example podwire-cni
BIN=${CARGO_TARGET_DIR:-target}/debug/examples
BIN=$(cd "$BIN" && pwd)

bold "A node: a network namespace with a wire to the outside"
mkdir -p "$RUN" "$BPF"
ip netns add "$NODE"; ip netns add "$OUTSIDE"
for pod in "${PODS[@]}"; do ip netns add "$pod"; done
on_node ip link set lo up
on_node ip link add eth0 type veth peer name eth0 netns "$OUTSIDE"
on_node ip addr add 192.0.2.1/24 dev eth0; on_node ip -6 addr add 2001:db8:30::1/64 dev eth0 nodad; on_node ip link set eth0 up
in_pod "$OUTSIDE" ip addr add 192.0.2.2/24 dev eth0; in_pod "$OUTSIDE" ip -6 addr add 2001:db8:30::2/64 dev eth0 nodad
in_pod "$OUTSIDE" ip link set eth0 up
in_pod "$OUTSIDE" ip route add 10.30.0.0/24 via 192.0.2.1; in_pod "$OUTSIDE" ip -6 route add fd00:30::/120 via 2001:db8:30::1
wait_for "the wire" on_node ping -c1 -W1 192.0.2.2
wait_for "the wire (IPv6)" on_node ping -c1 -W1 2001:db8:30::2
wait_for "duplicate address detection" sh -c "! ip -n $NODE -6 addr | grep -q tentative"
stable_picture >"$RUN/before"

bold "The agent"
start_agent
podwire status || fail "the node is not well"

bold "Two pods through CNI"
for pod in "${PODS[@]}"; do
  cni ADD "$pod" >"$RUN/$pod.json" || fail "ADD $pod: $(cat "$RUN/$pod.json")"
  jq -c '[.ips[].address]' "$RUN/$pod.json"
done
address() { jq -r --arg v "$2" '.ips[].address | select(contains($v)) | split("/")[0]' "$RUN/$1.json"; }
CLIENT=${PODS[0]} SERVER=${PODS[1]}
podwire endpoint list
podwire map get cilium_lxc
[ "$(podwire endpoint list -o json | jq '[.[] | select(.status.state == "ready")] | length')" -ge 2 ] || fail "not every endpoint is ready"

bold "Pods talk: ping, TCP and UDP, IPv4 and IPv6"
for target in "$(address "$SERVER" .)" "$(address "$SERVER" :)"; do
  in_pod "$CLIENT" ping -q -c 3 -i 0.2 -W 1 "$target" | grep -q ' 0% packet loss' || fail "ping $target"
  ok "ping $target"
  in_pod "$SERVER" nc -lN "$target" 8080 <<<"hello over TCP" & server=$!
  wait_for "the server" in_pod "$SERVER" sh -c "ss -ltn | grep -q ':8080 '"
  [ "$(in_pod "$CLIENT" nc -w 3 "$target" 8080 </dev/null)" = "hello over TCP" ] || fail "TCP to $target"
  wait "$server" || true
  ok "TCP to $target"
  in_pod "$SERVER" timeout 10 nc -luW 1 "$target" 9090 >"$RUN/udp" & server=$!
  wait_for "the server" in_pod "$SERVER" sh -c "ss -lun | grep -q ':9090 '"
  in_pod "$CLIENT" nc -uw 1 "$target" 9090 <<<"hello over UDP" || true
  wait "$server" || true
  grep -q "hello over UDP" "$RUN/udp" || fail "UDP to $target"
  ok "UDP to $target"
done

bold "Pods, the host and the outside reach each other"
for target in "$(address "$CLIENT" .)" "$(address "$CLIENT" :)"; do
  on_node ping -q -c 2 -i 0.2 -W 1 "$target" >/dev/null || fail "host to $target"
  in_pod "$OUTSIDE" ping -q -c 2 -i 0.2 -W 1 "$target" >/dev/null || fail "outside to $target"
  ok "host and outside to $target"
done
for target in 192.0.2.1 2001:db8:30::1 192.0.2.2 2001:db8:30::2; do
  in_pod "$CLIENT" ping -q -c 2 -i 0.2 -W 1 "$target" >/dev/null || fail "pod to $target"
  ok "pod to $target"
done

bold "A drop has a reason"
spawn_on_node "$BIN/podwire" --socket "$SOCKET" monitor --type drop >"$RUN/monitor" 2>&1 & monitor=$!
MONITOR=$monitor
dropped() { podwire bpf metrics list --bpf-root "$BPF" -o json | jq -e '[.[] | select(.reason | tostring | test("Stale|151"))] | length > 0'; }
until_dropped() { in_pod "$CLIENT" ping -c 1 -W 1 10.30.0.250 >/dev/null 2>&1 || true; dropped && grep -q "Stale or unroutable IP" "$RUN/monitor"; }
wait_for "the drop" until_dropped
kill "$monitor"; wait "$monitor" 2>/dev/null || true
MONITOR=
grep -m 1 "Stale or unroutable IP" "$RUN/monitor"
podwire bpf metrics list --bpf-root "$BPF"

bold "The agent is killed under traffic: not one packet is lost, and a restart adopts everything"
in_pod "$CLIENT" ping -q -c 40 -i 0.05 -W 1 "$(address "$SERVER" .)" >"$RUN/ping" & traffic=$!
kill -KILL "$AGENT"; wait "$AGENT" 2>/dev/null || true
if podwire status --brief >/dev/null 2>&1; then fail "the agent survived"; fi
start_agent
wait "$traffic" || true
grep -q ' 0% packet loss' "$RUN/ping" || fail "packets were lost: $(cat "$RUN/ping")"
ok "$(grep packets "$RUN/ping")"
[ "$(podwire endpoint list -o json | jq '[.[] | select(.status.state == "ready")] | length')" -ge 2 ] || fail "endpoints were not adopted"

bold "CHECK, then DEL three times"
for pod in "${PODS[@]}"; do
  printf '{"cniVersion":"1.1.0","name":"demo","type":"podwire-cni","socket":"%s","prevResult":%s}' "$SOCKET" "$(cat "$RUN/$pod.json")" |
    on_node env CNI_COMMAND=CHECK CNI_CONTAINERID="$pod" CNI_NETNS="/run/netns/$pod" CNI_IFNAME=eth0 CNI_PATH="$BIN" "$BIN/podwire-cni" ||
    fail "CHECK $pod"
  for _ in 1 2 3; do cni DEL "$pod" || fail "DEL $pod"; done
done
[ "$(podwire endpoint list -o json | jq '[.[] | select(.status.identity.id != 1)] | length')" = 0 ] || fail "endpoints are left"
podwire ipam list

bold "SIGTERM, clean-up, and the namespace is as it was"
kill -TERM "$AGENT"; wait "$AGENT" || fail "the agent's exit status was $?"
AGENT=
on_node "$BIN/podwire" cleanup --force --state-dir "$STATE" --bpf-root "$BPF"
stable_picture >"$RUN/after"
diff "$RUN/before" "$RUN/after" || fail "the namespace differs"
[ ! -e "$STATE" ] && ! mountpoint -q "$BPF" && [ -z "$(ls -A "$BPF")" ] || fail "state or pins are left"
ok "nothing is left"
bold "Every step did what it should"
