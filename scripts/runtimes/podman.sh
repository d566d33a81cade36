# shellcheck shell=bash
# Containers of podman with its CNI backend; sourced by runtimes.sh.

pm() {
  on_node env CONTAINERS_CONF="$RUN/containers.conf" podman --root "$RUN/podman/root" --runroot "$RUN/podman/run" \
    --tmpdir "$RUN/podman/tmp" --network-config-dir "$RUN/net.d" --storage-driver vfs "$@" 2>"$RUN/stderr" ||
    { local status=$?; cat "$RUN/stderr" >&2; return $status; }
}
run() { # name, podman run's options, image and command...
  pm run -d --name "$1" --cgroup-parent "$CGROUP" --stop-timeout 0 "${@:2}"
}
container() { # name, podman run's options...
  run "$1" --network podwire "${@:2}" localhost/busybox sleep 3600
}
address() { # container, IPAddress or GlobalIPv6Address
  pm inspect "$1" | jq -er ".[0].NetworkSettings.Networks.podwire.$2 | select(. != \"\")"
}

conflist() { # network, cniVersion
  jq --arg name "$1" --arg version "$2" '.name = $name | .cniVersion = $version' "$RUN/net.d/10-podwire.conflist" >"$RUN/net.d/30-$1.conflist"
}
hello() { [ "$("$1" /bin/busybox nc -w 2 "$2" 8081 </dev/null)" = hello ]; }

prove_podman() {
  bold "podman: $(podman --version), $(runc --version | head -n 1)"
  # Limits that a machine without CAP_SYS_RESOURCE can set, too.
  cat >"$RUN/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["$RUN/bin"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "none"
CONF
  pm import "$RUN/rootfs.tar" localhost/busybox >/dev/null || fail "podman import"
  [ "$(pm network inspect podwire | jq -r '.[0].driver')" = podwire-cni ] || fail "podman does not know the network"
  ok "podman network ls: podwire, of driver podwire-cni"

  bold "podman: two containers talk"
  local client server from=()
  client=$(container client) || fail "podman run"
  server=$(container server) || fail "podman run"
  expect_endpoints container-id "$client" "$server"
  from=(pm exec client)
  pings "$(address server IPAddress)" "${from[@]}"
  pings "$(address server GlobalIPv6Address)" "${from[@]}"
  pings "$NODE4" "${from[@]}"
  pings "$NODE6" "${from[@]}"
  pings "$(address server IPAddress)" on_node
  pings "$(address server GlobalIPv6Address)" on_node

  bold "podman: what it called"
  calls ADD "$client" | cut -f 1-4
  [[ "$(calls ADD "$client" | cut -f 3)" == /run/netns/netns-* ]] || fail "ADD without a named namespace"
  [ "$(calls ADD "$client" | wc -l)" = 1 ] || fail "ADD came more than once"

  bold "podman: a published port is said not to be led anywhere"
  container published -p 8080:80 >/dev/null || fail "podman run -p"
  wait_for "the warning" warned "port 8080 of the host is not led to port 80 of the container"
  pings "$(address published IPAddress)" "${from[@]}"
  calls ADD "$(pm inspect published | jq -r '.[0].Id')" | cut -f 5 | jq -c .runtimeConfig
  pm rm -f published >/dev/null || fail "podman rm"

  bold "podman: an address of one's own is said not to be given"
  container wishing --ip 10.40.0.77 >/dev/null || fail "podman run --ip"
  wait_for "the warning" warned "address 10.40.0.77 is not given"
  [ "$(address wishing IPAddress)" != 10.40.0.77 ] || fail "it was given after all"
  pings "$(address wishing IPAddress)" "${from[@]}"
  pm rm -f wishing >/dev/null || fail "podman rm"

  bold "podman: with portmap in the list, the port is led to the container"
  run ported --network podwire-ports -p 8081:80 localhost/busybox \
    sh -c 'while :; do echo hello | nc -l -p 80; done' >/dev/null || fail "podman run -p"
  local target
  for target in "$NODE4" "$NODE6"; do
    wait_for "TCP to $target from the node" hello on_node "$target"
    wait_for "TCP to $target from outside" hello outside "$target"
    ok "TCP to port 8081 of $target, from the node and from outside"
  done
  pm rm -f ported >/dev/null || fail "podman rm"
  if hello outside "$NODE4" 2>/dev/null; then fail "the port is still led somewhere"; fi
  expect_endpoints container-id "$client" "$server"

  bold "podman: versions of the configuration"
  local version
  for version in 0.3.1 0.4.0 1.0.0; do
    conflist "podwire-$version" "$version"
    run versioned --network "podwire-$version" localhost/busybox sleep 3600 >/dev/null || fail "podman run with cniVersion $version"
    pm rm -f versioned >/dev/null || fail "podman rm with cniVersion $version"
    ok "cniVersion $version"
  done
  conflist podwire-1.1.0 1.1.0
  refused 'unsupported CNI result version "1.1.0"' run versioned --network podwire-1.1.0 localhost/busybox sleep 3600
  pm rm -f versioned >/dev/null || fail "podman rm"
  expect_endpoints container-id "$client" "$server"

  bold "podman: network reload"
  pm network reload server >/dev/null || fail "podman network reload"
  [ "$(calls DEL "$server" | wc -l)/$(calls ADD "$server" | wc -l)" = 1/2 ] || fail "reload is not DEL, ADD"
  expect_endpoints container-id "$client" "$server"
  pings "$(address server IPAddress)" "${from[@]}"
  pings "$(address server GlobalIPv6Address)" "${from[@]}"

  bold "podman: restart"
  pm restart server >/dev/null || fail "podman restart"
  expect_endpoints container-id "$client" "$server"
  pings "$(address server IPAddress)" "${from[@]}"

  bold "podman: stop and rm"
  pm stop server >/dev/null || fail "podman stop"
  expect_endpoints container-id "$client"
  pm rm server >/dev/null || fail "podman rm"
  pm rm -f client >/dev/null || fail "podman rm"
  nothing_left

  bold "podman: the agent is killed, then the container removed"
  client=$(container client) || fail "podman run"
  kill_agent
  pm rm -f client >/dev/null || fail "podman rm without an agent"
  grep -q "$client" "$QUEUE"/*.delete || fail "the deletion was not queued"
  [ -z "$(on_node ip -o link | grep -o 'lxc[0-9a-f]*')" ] || fail "the device is left"
  ok "podman rm succeeds; the device is gone, the deletion is in the queue"
  refused "no agent answered" container client
  pm rm -f client >/dev/null || fail "podman rm"
  start_agent
  nothing_left
}
