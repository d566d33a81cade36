#!/usr/bin/env bash
# Runs the tests that need root on other kernels: Debian's, in QEMU without KVM. Exit status 0 only if every one passed on each.
# usage: scripts/kernels.sh [6.1] [6.12] [test program...]   both kernels and every program of $programs unless named
# Nothing is installed but QEMU and its helpers; the kernels stay in target/kernels, with the console of the last run.
set -euo pipefail
cd "$(dirname "$0")/.."

# Those that need root but neither cargo nor the example programs (cni_agent, cni_plugin, api_agent, api_requests, policy_trace and cli_* do), in the order of what they prove.
# Not simulator: it loads the programs for each packet, which takes ten seconds under emulation, so that connections end meanwhile.
programs="attach_mount attach_load attach_devices
  datapath_open datapath_node datapath_upkeep datapath_traffic datapath_conntrack datapath_policy datapath_moves
  endpoints veth cni_verbs
  programs_arp_ndp programs_events programs_host_netdev programs_ipv4 programs_ipv6 programs_malformed
  programs_conntrack programs_policy programs_verdicts programs_random programs_concurrent programs_table
  conntrack_collect conntrack_reads conntrack_sacrifice conntrack_race
  enforcement_engine enforcement_packets enforcement_swap policy_compile
  netns netlink netlink_events netlink_tc
  ipcache ipcache_writes tables_addresses tables_catalog tables_flows tables_lb
  maps_kinds maps_open maps_cached maps_ring maps_batches maps_concurrent"
modules="veth dummy 8021q sch_ingress cls_bpf cls_u32"
program_seconds=600
kernel_seconds=3600

folder=$PWD/target/kernels

step() { printf '\n== %s\n' "$*"; }
fail() { printf 'kernels: %s\n' "$*" >&2; exit 1; }

suite_of() {
  case "$1" in
    6.1) echo bookworm ;;
    6.12) echo bookworm-backports ;;
    *) fail "no kernel '$1': 6.1 or 6.12" ;;
  esac
}

# Debian's kernel for virtual machines, unpacked but not installed: boot/vmlinuz-* and lib/modules/*.
fetch_kernel() {
  local version=$1 suite root=$folder/$1/root apt=$folder/$1/apt package
  suite=$(suite_of "$version")
  [ ! -d "$root/boot" ] || return 0
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$apt/sources.list"
  local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update || fail "$suite is out of reach"
  package=$(apt-cache "${options[@]}" depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p')
  [ -n "$package" ] || fail "no kernel in $suite"
  (cd "$apt" && apt-get "${options[@]}" download "$package")
  rm -rf "$root.new"
  dpkg -x "$apt/$package"_*.deb "$root.new"
  mv "$root.new" "$root"
}

# Copies a program to the image, with the shared libraries it is linked to.
copy_program() {
  local from=$1 image=$2 to=$3 library
  install -D "$from" "$image/$to"
  strip "$image/$to"
  for library in $(ldd "$from" | grep -o '/[^ ]*'); do
    [ -e "$image/$library" ] || install -D "$library" "$image/$library"
  done
}

# Copies modules and what they depend on, and lists them in the order of loading.
copy_modules() {
  local root=$1 image=$2 release=$3 module path name
  mkdir -p "$image/modules"
  depmod -b "$root" "$release"
  for module in $modules; do
    modprobe -d "$root" -S "$release" --show-depends "$module" | awk '$1 == "insmod" {print $2}'
  done | awk '!seen[$0]++' | while read -r path; do
    name=$(basename "${path%.xz}")
    case "$path" in
      *.xz) xz -dc "$path" >"$image/modules/$name" ;;
      *) cp "$path" "$image/modules/$name" ;;
    esac
    echo "$name" >>"$image/modules/order"
  done
}

write_init() {
  cat >"$1/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /usr/bin /usr/sbin /sbin
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/bin HOME=/ RUST_TEST_THREADS=1 RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
for module in $(cat /modules/order); do insmod /modules/$module || echo "kernels: no $module"; done
. /settings
echo; echo "kernels: running Linux $(uname -r)"
failed=0
for program in $programs; do
  start=$(cut -d. -f1 /proc/uptime)
  timeout -s KILL "$seconds" "/tests/$program" >/tmp/output 2>&1
  status=$?
  took=$(($(cut -d. -f1 /proc/uptime) - start))
  counts=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]* passed; [0-9]* failed\).*/\1/p' /tmp/output)
  if [ $status = 0 ]; then
    echo "kernels: passed $program: $counts, $took s"
    grep -o 'skipped: .*' /tmp/output
  else
    failed=$((failed + 1))
    echo "kernels: FAILED $program: status $status, $counts, $took s"
    tail -c 12000 /tmp/output
  fi
done
dmesg | grep -E 'BUG:|WARNING:|Oops' && failed=$((failed + 1))
echo "kernels: end, $failed failed"
poweroff -f
INIT
  chmod +x "$1/init"
}

# Everything in one initramfs. The tests read sources by the path they were compiled at.
make_image() {
  local version=$1 image=$folder/$1/image root=$folder/$1/root release program tool
  release=$(basename "$root"/lib/modules/*)
  rm -rf "$image"
  mkdir -p "$image/bin" "$image/$PWD/tests"
  cp "$(command -v busybox)" "$image/bin/busybox"
  copy_modules "$root" "$image" "$release"
  for tool in ip tc; do copy_program "$(readlink -f "$(PATH=$PATH:/usr/sbin:/sbin command -v $tool)")" "$image" "usr/local/bin/$tool"; done
  for program in $programs; do
    [ -n "${built[$program]:-}" ] || fail "no test program '$program'"
    copy_program "${built[$program]}" "$image" "tests/$program"
  done
  cp -r bpf "$image/$PWD/"
  cp -r tests/bpf tests/fixtures "$image/$PWD/tests/"
  write_init "$image"
  printf 'programs="%s"\nseconds=%s\nexport PODWIRE_RANDOM_CASES=%s PODWIRE_BATCH_ENTRIES=%s\n' \
    "$(echo $programs)" "$program_seconds" "${PODWIRE_RANDOM_CASES:-500}" "${PODWIRE_BATCH_ENTRIES:-5000}" >"$image/settings"
  (cd "$image" && find . | cpio --quiet -o -H newc) >"$folder/$version/initramfs"
  rm -rf "$image"
}

# One CPU, no CMPXCHG16B: with two, or with it, 6.12 oopses under the emulation of QEMU 7.2.
boot() {
  local version=$1 console=$folder/$1/console.log
  timeout "$kernel_seconds" qemu-system-x86_64 -machine q35 -accel tcg -cpu max,-cx16,-la57 -smp 1 -m 3G -nographic -no-reboot \
    -kernel "$folder/$version"/root/boot/vmlinuz-* -initrd "$folder/$version/initramfs" \
    -append "console=ttyS0 loglevel=4 panic=-1" </dev/null 2>&1 |
    stdbuf -oL tr -d '\r' | tee "$console" | sed -un '/^kernels: running/,$p' || true
  grep -q '^kernels: end, 0 failed$' "$console"
}

main() {
  local versions=() named=() argument version bad=()
  for argument in "$@"; do
    case "$argument" in [0-9]*) suite_of "$argument" >/dev/null; versions+=("$argument") ;; *) named+=("$argument") ;; esac
  done
  [ ${#versions[@]} -gt 0 ] || versions=(6.1 6.12)
  [ ${#named[@]} -eq 0 ] || programs=${named[*]}

  scripts/setup.sh test kernels
  [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  step "build"
  local targets=(--lib --tests) name path
  [ ${#named[@]} -eq 0 ] || targets=("${named[@]/#/--test=}")
  declare -gA built
  while read -r name path; do built[$name]=$path; done < <(
    cargo test --quiet --no-run --all-features --message-format=json "${targets[@]/#--test=podwire/--lib}" |
      jq -r 'select(.executable != null and .profile.test) | "\(.target.name) \(.executable)"')
  for version in "${versions[@]}"; do
    step "Linux $version"
    fetch_kernel "$version"
    make_image "$version"
    boot "$version" || bad+=("$version")
  done
  [ ${#bad[@]} -eq 0 ] || fail "failed on Linux ${bad[*]}: see target/kernels/*/console.log"
  step "all passed"
}

main "$@"
