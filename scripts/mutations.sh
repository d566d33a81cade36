#!/usr/bin/env bash
# Changes the C code in many small wrong ways, one at a time, and expects the tests of the programs to notice each. Prints a table;
# exit status 0 only if every one was noticed.
# usage: scripts/mutations.sh [part of a name...]   those of tests/mutations.txt whose name contains one of the words; all without
# Neither the tree nor the crate is touched: the changed objects are built in a folder of their own, from which the tests load them.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR "$0" "$@"
fi
[ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf

fail() { printf 'mutations: %s\n' "$*" >&2; exit 1; }

# In the order in which they are asked: the random stories notice most, and fail at the first one; then those that take least.
tests="programs_random programs_verdicts conntrack_reads programs_table conntrack_collect conntrack_sacrifice programs_conntrack
  programs_policy conntrack_race"
# Stories that can be repeated.
export PODWIRE_RANDOM_SEED=${PODWIRE_RANDOM_SEED:-1} PODWIRE_RANDOM_CASES=${PODWIRE_RANDOM_CASES:-30000} RUST_BACKTRACE=0
patience=600

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# build.rs says how objects are compiled; here it is only done oftener. What plays the datapath in a test is made of the same code.
compile() {
  local from=$1 to=$2 source name
  for source in "$from"/{lxc,host,netdev,conntrack}.bpf.c tests/bpf/revive.bpf.c; do
    name=$(basename "$source" .bpf.c)
    "$clang" -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -I"$from" -isystem bpf/vendor -isystem "$headers" \
      -isystem "/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$to/$name.bpf.o" 2>"$scratch/clang" ||
      { cat "$scratch/clang"; return 1; }
  done
}

# The name of the first test program that fails with these objects, or nothing.
noticed_by() {
  local program status
  for program in $tests; do
    status=0
    PODWIRE_TEST_OBJECTS=$1 timeout "$patience" "$scratch/$program" >"$scratch/output" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
      # A program that does not load proves nothing about the tests.
      ! grep -q 'the programs load' "$scratch/output" || program="the verifier"
      printf '%s\n' "$program"
      return
    fi
  done
}

printf 'building the tests\n'
# shellcheck disable=SC2086
executables=$(cargo test --all-features --no-run $(printf -- '--test %s ' $tests) 2>&1 | sed -n 's/.*Executable tests\/\(.*\)\.rs (\(.*\))/\1 \2/p')
for program in $tests; do
  path=$(awk -v name="$program" '$1 == name { print $2 }' <<<"$executables")
  [ -n "$path" ] || fail "$program was not built: cargo test --all-features --test $program"
  cp "$path" "$scratch/$program"
done
headers=$(find "${CARGO_TARGET_DIR:-target}/debug/build" -path '*libbpf-sys-*/out/include' -type d | head -n 1)
[ -n "$headers" ] || fail "libbpf's headers are not in target/debug/build"
clang=${CLANG:-}
for version in 19 18 17 16 15 14; do
  [ -n "$clang" ] || clang=$(command -v "clang-$version" || true)
done
clang=${clang:-clang}

# Without a change nothing may fail, or the rest would prove nothing.
mkdir "$scratch/right"
compile bpf "$scratch/right" || fail "the code as it is does not compile"
who=$(noticed_by "$scratch/right")
[ -z "$who" ] || { cat "$scratch/output"; fail "$who fails without any change"; }

survivors=0 count=0
printf '%-52s %s\n' "what is wrong" "noticed by"
# The table: name, file, what stands there, what is put in its place; an empty line, or one with # first, is none.
while IFS= read -r line; do
  case "$line" in '' | '#'*) continue ;; esac
  name=$line
  IFS= read -r file && IFS= read -r old && IFS= read -r new || fail "$name: cut short"
  file=${file#file: } old=${old#old: } new=${new#new: }
  wanted=${1:+no}
  for word in "$@"; do case "$name" in *"$word"*) wanted= ;; esac; done
  [ -z "$wanted" ] || continue
  count=$((count + 1))
  rm -rf "$scratch/bpf" "$scratch/wrong"
  cp -r bpf "$scratch/bpf"
  mkdir "$scratch/wrong"
  content=$(cat "bpf/$file")
  case "$content" in *"$old"*) ;; *) fail "$name: bpf/$file has no such line any more: $old" ;; esac
  printf '%s\n' "${content/"$old"/"$new"}" >"$scratch/bpf/$file"
  if compile "$scratch/bpf" "$scratch/wrong"; then who=$(noticed_by "$scratch/wrong"); else who="the compiler"; fi
  case "$who" in
    '') who="NOBODY" survivors=$((survivors + 1)) ;;
    "the verifier" | "the compiler") who="$who: choose another change" survivors=$((survivors + 1)) ;;
  esac
  printf '%-52s %s\n' "$name" "$who"
done <tests/mutations.txt

[ "$count" != 0 ] || fail "no mutation has such a name"
[ "$survivors" = 0 ] || fail "$survivors of $count were not noticed"
printf 'all %s were noticed\n' "$count"
