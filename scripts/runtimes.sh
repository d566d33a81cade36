#!/usr/bin/env bash
# Proves plugin and agent under real container runtimes, as Debian packages them: installs what is missing, builds, starts an
# agent on a node of its own (network, mount and process namespaces: the machine's network, /run and runtimes are untouched),
# runs containers and pods, kills things, cleans up. Exit status 0 only if every step did what it should.
# usage: scripts/runtimes.sh [podman] [containerd]      both by default
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in -h|--help) sed -n '2,5s/^# //p' "$0"; exit 0 ;; esac
for runtime in "$@"; do
  case "$runtime" in podman|containerd) ;; *) echo "runtimes: unknown runtime '$runtime'; see --help" >&2; exit 2 ;; esac
done
[ $# -gt 0 ] || set -- podman containerd
if [ "$(id -u)" != 0 ]; then
  exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR "$0" "$@"
fi

TAG=pwrt$$
RUN=$(mktemp -d "/tmp/$TAG.XXXXXX")
SOCKET=$RUN/podwire.sock QUEUE=$RUN/deleteQueue CALLS=$RUN/calls CGROUP=/$TAG
NODE4=192.0.2.1 NODE6=2001:db8:40::1
INIT= KEEPER= AGENT=

bold() { if [ -t 1 ]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
ok() { printf '   ok: %s\n' "$*"; }
fail() {
  local file
  printf 'runtimes: %s\n' "$*" >&2
  for file in agent.log plugin.log containerd.log stderr; do
    [ ! -s "$RUN/$file" ] || { printf -- '--- %s\n' "$file"; tail -n 15 "$RUN/$file"; } >&2
  done
  exit 1
}
on_node() { nsenter --target "$INIT" --net --mount --pid "$@"; }
# In the background it must be nsenter itself that $! names, whose child is the process on the node.
spawn_on_node() { exec nsenter --target "$INIT" --net --mount --pid "$@"; }
kill_spawned() { kill "-$1" "$(pgrep -P "$2")"; wait "$2" 2>/dev/null || true; }
outside() { on_node ip netns exec outside "$@"; }
podwire() { on_node "$BIN/podwire" --socket "$SOCKET" "$@"; }

wait_for() { # what, command...
  local what=$1; shift
  local deadline=$((SECONDS + 20))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || fail "$what did not happen within 20 s"
    read -rt 0.05 <> <(:) || true
  done
}

tear_down() {
  # The end of a process namespace's first process is the end of all others in it, and of the mounts and devices they had.
  [ -z "$INIT" ] || kill -KILL "$INIT" 2>/dev/null || true
  [ -z "$KEEPER" ] || [ -n "$INIT" ] || kill -KILL "$KEEPER" 2>/dev/null || true
  [ -z "$KEEPER" ] || wait "$KEEPER" 2>/dev/null || true
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    find /sys/fs/cgroup -depth -type d -path "*/$TAG*" -exec rmdir {} + 2>/dev/null || true
    [ -n "$(our_cgroups)" ] || break
    read -rt 0.2 <> <(:) || true
  done
  rm -rf "$RUN"
}
our_cgroups() { find /sys/fs/cgroup -type d -path "*/$TAG*" 2>/dev/null; }
trap tear_down EXIT

install() {
  local packages=(iproute2 iputils-ping jq runc busybox-static) missing=() runtime package
  for runtime in "$@"; do
    case "$runtime" in
      podman) packages+=(podman conmon containernetworking-plugins) ;;
      containerd) packages+=(containerd containernetworking-plugins protobuf-compiler python3 python3-grpcio python3-protobuf) ;;
    esac
  done
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  printf 'runtimes: installing %s\n' "${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

start_node() {
  # Its first process does nothing but reap: conmon and shims become its children.
  unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    bash -c 'while :; do sleep 3600 & wait $!; done' 2>"$RUN/node.log" &
  KEEPER=$!
  wait_for "the node's first process" pgrep -P "$KEEPER"
  INIT=$(pgrep -P "$KEEPER")
  wait_for "the node's own /proc" sh -c "[ \"\$(nsenter --target $INIT --mount --pid readlink /proc/self/ns/pid)\" != \"\$(readlink /proc/self/ns/pid)\" ]"
  on_node sh -eu -c '
    mkdir -p /var/lib/cni /etc/cni/net.d /opt
    for dir in /run /dev/shm /var/lib/cni /opt; do
      [ ! -d "$dir" ] || mount -t tmpfs tmpfs "$(readlink -f "$dir")"
    done
    mkdir -p /run/netns /run/lock /opt/cni'
  on_node ip netns add outside
  on_node ip link set lo up
  on_node ip link add eth0 type veth peer name eth0 netns outside
  on_node ip addr add "$NODE4/24" dev eth0
  on_node ip -6 addr add "$NODE6/64" dev eth0 nodad
  on_node ip link set eth0 up
  outside ip addr add 192.0.2.2/24 dev eth0
  outside ip -6 addr add 2001:db8:40::2/64 dev eth0 nodad
  outside ip link set eth0 up
}

start_agent() {
  RUST_LOG=info spawn_on_node "$BIN/podwire-agent" --node-name runtimes --ipv4-range 10.40.0.0/24 --ipv6-range fd00:40::/120 \
    --device eth0 --bpf-root "$RUN/bpf" --state-dir "$RUN/state" --socket "$SOCKET" >>"$RUN/agent.log" 2>&1 &
  AGENT=$!
  wait_for "the agent's start" podwire status --brief
}
kill_agent() {
  kill_spawned KILL "$AGENT"
  if podwire status --brief >/dev/null 2>&1; then fail "the agent survived"; fi
}

# What a runtime calls is recorded before it is served.
install_plugin() {
  mkdir -p "$RUN/bin" "$RUN/net.d" "$RUN/bpf"
  cat >"$RUN/bin/podwire-cni" <<PLUGIN
#!/bin/sh
conf=\$(cat)
printf '%s\t%s\t%s\t%s\t%s\n' "\$CNI_COMMAND" "\$CNI_CONTAINERID" "\${CNI_NETNS:--}" "\${CNI_ARGS:--}" "\$(printf %s "\$conf" | tr -d '\n\t')" >>"$CALLS"
printf %s "\$conf" | "$BIN/podwire-cni"
PLUGIN
  chmod +x "$RUN/bin/podwire-cni"
  ln -s /usr/lib/cni/loopback /usr/lib/cni/portmap "$RUN/bin/"
  cat >"$RUN/net.d/10-podwire.conflist" <<CONF
{
  "cniVersion": "1.0.0",
  "name": "podwire",
  "plugins": [
    { "type": "podwire-cni", "socket": "$SOCKET", "agent-timeout": 2, "log-file": "$RUN/plugin.log", "log-level": "info",
      "capabilities": { "portMappings": true } }
  ]
}
CONF
  # portmap does what podwire-cni does not: it alone is told of the ports.
  cat >"$RUN/net.d/20-podwire-ports.conflist" <<CONF
{
  "cniVersion": "1.0.0",
  "name": "podwire-ports",
  "plugins": [
    { "type": "podwire-cni", "socket": "$SOCKET", "log-file": "$RUN/plugin.log", "log-level": "info" },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
CONF
}

make_rootfs() {
  mkdir -p "$RUN"/rootfs/{bin,dev,etc,proc,sys,tmp}
  cp /bin/busybox "$RUN/rootfs/bin/"
  local name
  for name in sh sleep ping ip cat nc; do ln -s busybox "$RUN/rootfs/bin/$name"; done
  echo 'root:x:0:0::/:/bin/sh' >"$RUN/rootfs/etc/passwd"
  tar -C "$RUN/rootfs" -cf "$RUN/rootfs.tar" .
}

# ---- what is asserted again and again ----
calls() { awk -F'\t' -v command="$1" -v container="$2" '$1 == command && $2 == container' "$CALLS"; }
warned() { grep -q "$1" "$RUN/plugin.log"; }
endpoints() { podwire endpoint list -o json | jq -r '.[] | select(.status.identity.id != 1) | '"$1"; }
# Fails unless exactly these containers (or pods) have endpoints, all of them ready.
expect_endpoints() { # "container-id" or "pod-name", names...
  local key=$1 want have; shift
  want=$(printf '%s ready\n' "$@" | sort)
  have=$(endpoints '.status["external-identifiers"]["'"$key"'"] + " " + .status.state' | sort)
  [ "$have" = "$want" ] || fail "endpoints: wanted
$want
have
$have"
  ok "podwire endpoint list: $# endpoints, ready"
}
no_endpoints() { [ -z "$(endpoints .id)" ]; }
nothing_left() {
  no_endpoints || fail "endpoints are left: $(endpoints .id)"
  [ -z "$(on_node ip -o link | grep -o 'lxc[0-9a-f]*')" ] || fail "devices are left: $(on_node ip -o link)"
  [ -z "$(leases)" ] || fail "leases are left: $(podwire ipam list)"
  [ -z "$(find "$QUEUE" -name '*.delete' 2>/dev/null)" ] || fail "deletions are still queued"
  [ "$(on_node ls /run/netns)" = outside ] || fail "network namespaces are left: $(on_node ls /run/netns)"
  ok "no endpoint, lease, device, queued deletion or namespace is left"
}
leases() { podwire ipam list | grep -P '^(10\.40|fd00:40)' | grep -vw router || true; }
refused() { # what is to be in the message, command...
  local words=$1; shift
  if "$@" >"$RUN/stdout" 2>"$RUN/stderr"; then fail "should have failed: $*"; fi
  grep -qi "$words" "$RUN/stderr" || fail "the error does not say '$words'"
  ok "refused: $(grep -i "$words" "$RUN/stderr" | tail -n 1 | cut -c 1-240)"
}
pings() { # target, command that runs things in the container...
  local target=$1; shift
  "$@" ping -c 1 -W 1 "$target" >"$RUN/stdout" 2>"$RUN/stderr" || fail "no answer from $target"
  ok "ping $target"
}

bold "Set up and build"
install "$@"
scripts/setup.sh
[ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
cargo build --all-features --example podwire --example podwire-agent --example podwire-cni
BIN=${CARGO_TARGET_DIR:-target}/debug/examples
BIN=$(cd "$BIN" && pwd)

bold "A node of its own, and its agent"
install_plugin
make_rootfs
start_node
start_agent
podwire status --brief

for runtime in "$@"; do
  # shellcheck source=/dev/null
  . "scripts/runtimes/$runtime.sh"
  "prove_$runtime"
done

bold "Every call of the plugin"
cut -f 1 "$CALLS" | sort | uniq -c
verbs=$(cut -f 1 "$CALLS" | sort -u | tr '\n' ' ')
[ "${verbs/VERSION /}" = "ADD DEL " ] || fail "docs/runtimes.md says that only ADD, DEL and VERSION are called"

bold "Clean up"
before=$TAG
tear_down
INIT= KEEPER=
if [ -n "$(our_cgroups)" ]; then fail "cgroups are left: $(our_cgroups)"; fi
if grep -q "$before" /proc/mounts; then fail "mounts are left"; fi
if [ -e "$RUN" ]; then fail "$RUN is left"; fi
ok "no process, mount, cgroup or file is left"
bold "Every step did what it should"
