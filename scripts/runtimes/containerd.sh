# shellcheck shell=bash
# Pods of containerd's CRI, and containers of ctr; sourced by runtimes.sh.

CONTAINERD=
cri() { on_node env PYTHONPATH="$RUN" PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$PWD/scripts/runtimes/cri.py" "$RUN/containerd.sock" "$@"; }
ct() { on_node ctr --address "$RUN/containerd.sock" "$@"; }
pod() { cri runp "default/$1" "$CGROUP" "${@:2}"; }

start_containerd() {
  spawn_on_node containerd --config "$RUN/containerd.toml" >>"$RUN/containerd.log" 2>&1 &
  CONTAINERD=$!
  wait_for "containerd's start" ct version
  wait_for "containerd's network" network_ready
}
network_ready() { cri status | grep -q '^NetworkReady=true'; }

# An image in the form docker saves them, of the root file system alone.
import_image() {
  mkdir -p "$RUN/image"
  local layer
  layer=$(sha256sum <"$RUN/rootfs.tar" | cut -d ' ' -f 1)
  cp "$RUN/rootfs.tar" "$RUN/image/layer.tar"
  printf '{"architecture":"amd64","os":"linux","config":{"Entrypoint":["/bin/sleep","3600"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$layer" >"$RUN/image/config.json"
  printf '[{"Config":"config.json","RepoTags":["localhost/busybox:latest"],"Layers":["layer.tar"]}]' >"$RUN/image/manifest.json"
  tar -C "$RUN/image" -cf "$RUN/image.tar" manifest.json config.json layer.tar
  local namespace
  for namespace in k8s.io default; do
    ct --namespace "$namespace" images import --snapshotter native "$RUN/image.tar" >/dev/null || fail "ctr images import"
  done
}

prove_containerd() {
  bold "containerd: $(containerd --version | cut -d ' ' -f 2-3), $(runc --version | head -n 1)"
  protoc -I scripts/runtimes --python_out="$RUN" cri.proto
  # The last setting is for machines without CAP_SYS_RESOURCE.
  cat >"$RUN/containerd.toml" <<CONF
version = 2
root = "$RUN/containerd/root"
state = "$RUN/containerd/state"
temp = "$RUN/containerd/tmp"
[grpc]
  address = "$RUN/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/busybox:latest"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$RUN/bin"
    conf_dir = "$RUN/net.d"
CONF
  start_containerd
  import_image
  cri status
  prove_cri
  prove_ctr
  kill_spawned TERM "$CONTAINERD"
}

comes_and_goes() {
  local sandbox
  sandbox=$(pod "$1" 2>"$RUN/stderr") && cri stopp "$sandbox" && cri rmp "$sandbox"
}
newer_is_refused() { ! comes_and_goes newer && grep -q 'unsupported CNI result version "1.1.0"' "$RUN/stderr"; }

prove_cri() {
  bold "containerd: two pods talk"
  local web client main address from=() addresses
  web=$(pod web 8080:80) || fail "RunPodSandbox"
  client=$(pod client) || fail "RunPodSandbox"
  expect_endpoints pod-name default/web default/client
  main=$(cri run "$client" default/client "$CGROUP" localhost/busybox:latest sleep 3600) || fail "CreateContainer, StartContainer"
  from=(cri exec "$main")
  mapfile -t addresses < <(cri inspectp "$web")
  [ ${#addresses[@]} = 2 ] || fail "PodSandboxStatus has not both addresses: ${addresses[*]}"
  for address in "${addresses[@]}"; do
    pings "$address" "${from[@]}"
    pings "$address" on_node
  done
  pings "$NODE4" "${from[@]}"
  pings "$NODE6" "${from[@]}"

  bold "containerd: what it called"
  calls ADD "$web" | cut -f 1-4
  calls ADD "$web" | cut -f 5 | jq -c .runtimeConfig
  [[ "$(calls ADD "$web" | cut -f 3)" == */netns/cni-* ]] || fail "ADD without a named namespace"
  [[ "$(calls ADD "$web" | cut -f 4)" == *K8S_POD_NAME=web* ]] || fail "ADD without the pod's name"
  wait_for "the warning" warned "port 8080 of the host is not led to port 80 of the container"
  ok "a host port is warned of, and the pod runs"

  bold "containerd: a configuration of version 1.1.0"
  jq '.cniVersion = "1.1.0"' "$RUN/net.d/10-podwire.conflist" >"$RUN/net.d/05-newer.conflist"
  wait_for "the refusal" newer_is_refused
  rm "$RUN/net.d/05-newer.conflist"
  wait_for "the older configuration" comes_and_goes older
  expect_endpoints pod-name default/web default/client
  ok "refused, and nothing of it is left"

  bold "containerd: StopPodSandbox, RemovePodSandbox"
  cri stopp "$web" || fail "StopPodSandbox"
  expect_endpoints pod-name default/client
  cri stopp "$web" || fail "StopPodSandbox again"
  cri rmp "$web" || fail "RemovePodSandbox"
  calls DEL "$web" | cut -f 1-3
  [ "$(calls DEL "$web" | wc -l)" -ge 2 ] || fail "DEL was not repeated"
  [ "$(calls DEL "$web" | tail -n 1 | cut -f 3)" = - ] || fail "the last DEL has a CNI_NETNS"
  ok "DEL is repeated with an empty CNI_NETNS, and succeeds"
  expect_endpoints pod-name default/client

  bold "containerd: killed and started again, the pod is still reached"
  kill_spawned KILL "$CONTAINERD"
  mapfile -t addresses < <(podwire endpoint list -o json | jq -r '.[].status.networking.addressing[] | .ipv4, .ipv6 | select(. != null)')
  for address in "${addresses[@]}"; do pings "$address" on_node; done
  start_containerd
  pings "$NODE4" "${from[@]}"

  bold "containerd: the agent is killed, then the pod removed"
  kill_agent
  cri stopp "$client" || fail "StopPodSandbox without an agent"
  cri rmp "$client" || fail "RemovePodSandbox without an agent"
  grep -q "$client" "$QUEUE"/*.delete || fail "the deletion was not queued"
  [ -z "$(on_node ip -o link | grep -o 'lxc[0-9a-f]*')" ] || fail "the device is left"
  ok "StopPodSandbox and RemovePodSandbox succeed; the device is gone, the deletion is in the queue"
  refused "no agent answered" pod late
  start_agent
  nothing_left
  pod late >/dev/null || fail "RunPodSandbox with the agent back"
  expect_endpoints pod-name default/late
  web=$(ct --namespace k8s.io containers ls -q)
  cri stopp "$web" || fail "StopPodSandbox"
  cri rmp "$web" || fail "RemovePodSandbox"
  nothing_left
}

prove_ctr() {
  bold "containerd: ctr run --cni"
  # ctr knows one place for plugins and one for configurations.
  on_node ln -s "$RUN/bin" /opt/cni/bin
  on_node mount --bind "$RUN/net.d" /etc/cni/net.d
  ct run --rm --cni --snapshotter native --cgroup "$CGROUP/ctr" localhost/busybox:latest web \
    sh -c "ping -c 1 -W 1 $NODE4 && ping -c 1 -W 1 $NODE6 && ip -o addr show eth0" >"$RUN/stdout" 2>"$RUN/stderr" </dev/null ||
    fail "ctr run: $(cat "$RUN/stdout")"
  grep 'scope global' "$RUN/stdout"
  cut -f 1-3 "$CALLS" | grep -P '\tdefault-web\t'
  [[ "$(calls ADD default-web | cut -f 3)" == /proc/*/ns/net ]] || fail "ADD without a namespace in /proc"
  [ "$(calls DEL default-web | cut -f 3)" = - ] || fail "DEL has a CNI_NETNS"
  ok "both families reach the node; ADD has /proc/PID/ns/net, DEL an empty CNI_NETNS"
  nothing_left
  bold "containerd: ctr run --cni --detach, which never calls DEL: the agent notices that the namespace ended"
  ct run --detach --cni --snapshotter native --cgroup "$CGROUP/ctr" localhost/busybox:latest detached sleep 3600 ||
    fail "ctr run --detach"
  expect_endpoints container-id default-detached
  ct task kill --signal KILL detached
  wait_for "the task's end" ct task delete detached
  ct container delete detached || fail "ctr container delete"
  [ -z "$(calls DEL default-detached)" ] || fail "ctr calls DEL after all"
  ok "the container is gone, without DEL"
  wait_for "the agent's notice" no_endpoints
  nothing_left
}
