#!/usr/bin/env bash
# Changes the C code in many small wrong ways, one at a time, and expects the tests of the programs to notice each. Prints a table;
# exit status 0 only if every one was noticed.
# usage: scripts/mutations.sh [part of a name...]   those of tests/mutations.txt whose name contains one of the words; all without
# Neither the tree nor the crate is touched: the changed objects are built in folders of their own, from which the tests load them.
# As many changes are tried at once as there are CPUs, or MUTATIONS_JOBS.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  exec sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,MUTATIONS_JOBS "$0" "$@"
fi
[ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf

fail() { printf 'mutations: %s\n' "$*" >&2; exit 1; }

# In the order in which they are asked, after those that the list names for a change.
tests="programs_random programs_verdicts conntrack_reads programs_table conntrack_sacrifice conntrack_collect programs_policy
  programs_conntrack conntrack_race enforcement_packets"
# Stories that can be repeated.
export PODWIRE_RANDOM_SEED=${PODWIRE_RANDOM_SEED:-1} PODWIRE_RANDOM_CASES=${PODWIRE_RANDOM_CASES:-30000} RUST_BACKTRACE=0
patience=600

scratch=$(mktemp -d)
workers=()
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
  [ "${#workers[@]}" = 0 ] || kill "${workers[@]}" 2>/dev/null || true
  rm -rf "$scratch"
}
trap clean_up EXIT
# The code as it is now, whatever becomes of it meanwhile.
code=$scratch/code
mkdir "$code"
cp -r bpf tests/bpf/{revive,meanwhile}.bpf.c "$code"

# ---- the list ----

# Name, file, what stands there, what is put in its place, and who is asked first; an empty line, or one with # first, is none.
names=() files=() olds=() news=() firsts=() first=
while IFS= read -r line; do
  case "$line" in
    '' | '#'*) continue ;;
    'first: '*) first=${line#first: }; continue ;;
  esac
  name=$line
  IFS= read -r file && IFS= read -r old && IFS= read -r new || fail "$name: cut short"
  file=${file#file: } old=${old#old: } new=${new#new: }
  wanted=${1:+no}
  for word in "$@"; do case "$name" in *"$word"*) wanted= ;; esac; done
  [ -z "$wanted" ] || continue
  case "$(cat "$code/bpf/$file")" in *"$old"*) ;; *) fail "$name: bpf/$file has no such line any more: $old" ;; esac
  names+=("$name") files+=("$file") olds+=("$old") news+=("$new") firsts+=("$first")
done <tests/mutations.txt
count=${#names[@]}
[ "$count" != 0 ] || fail "no mutation has such a name"

# ---- objects and tests ----

# Compiles what includes a file (everything where none is given) from one folder to another, and takes the rest as it was. build.rs
# says how objects are compiled; here it is only done oftener. What plays the datapath in a test is made of the same code.
compile() {
  local from=$1 to=$2 changed=${3:-} source name
  for source in "$from"/{lxc,host,netdev,conntrack}.bpf.c "$code"/{revive,meanwhile}.bpf.c; do
    name=$(basename "$source" .bpf.c)
    if [ -n "$changed" ] && ! grep -q "bpf/$changed\b" "$scratch/right/$name.d"; then
      cp "$scratch/right/$name.bpf.o" "$to"
      continue
    fi
    "$clang" -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_x86 -I"$from" -isystem "$code/bpf/vendor" -isystem "$headers" \
      -isystem "/usr/include/$(uname -m)-linux-gnu" -MMD -MF "$to/$name.d" -c "$source" -o "$to/$name.bpf.o" 2>"$to/clang" || return 1
  done
}

# The name of the first test program that fails with the objects of a folder, or nothing.
noticed_by() {
  local objects=$1 program asked=
  # shellcheck disable=SC2086
  for program in ${2:-} $tests; do
    case "$asked" in *" $program "*) continue ;; esac
    asked="$asked $program "
    if ! PODWIRE_TEST_OBJECTS=$objects timeout "$patience" "$scratch/$program" >"$objects/output" 2>&1; then
      # A program that does not load proves nothing about the tests.
      ! grep -q 'the programs load' "$objects/output" || program="the verifier"
      printf '%s\n' "$program"
      return
    fi
  done
}

printf 'building the tests\n'
# shellcheck disable=SC2046,SC2086
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
compile "$code/bpf" "$scratch/right" || { cat "$scratch/right/clang"; fail "the code as it is does not compile"; }
who=$(noticed_by "$scratch/right")
[ -z "$who" ] || { cat "$scratch/right/output"; fail "$who fails without any change"; }

# ---- the changes ----

# Tries one change in a worker's folder, and says what came of it.
try() {
  local folder=$1 number=$2 began=$SECONDS content who
  rm -rf "$folder"
  mkdir -p "$folder/wrong"
  cp -r "$code/bpf" "$folder/bpf"
  content=$(cat "$code/bpf/${files[number]}")
  printf '%s\n' "${content/"${olds[number]}"/"${news[number]}"}" >"$folder/bpf/${files[number]}"
  if compile "$folder/bpf" "$folder/wrong" "${files[number]}"; then
    who=$(noticed_by "$folder/wrong" "${firsts[number]}")
  else
    who="the compiler"
  fi
  case "$who" in
    '') who="NOBODY" ;;
    "the verifier" | "the compiler") who="NOBODY, it is $who's: choose another change" ;;
  esac
  printf '%-52s %-20s %4s s\n' "${names[number]}" "$who" "$((SECONDS - began))" | tee -a "$scratch/results"
}

# Tries those that no other worker has begun.
work() {
  local number
  for ((number = 0; number < count; number++)); do
    ! mkdir "$scratch/begun.$number" 2>/dev/null || try "$scratch/$1" "$number"
  done
}

printf '%-52s %-20s\n' "what is wrong" "noticed by"
: >"$scratch/results"
for ((worker = 0; worker < ${MUTATIONS_JOBS:-$(nproc)}; worker++)); do
  work "worker.$worker" &
  workers+=($!)
done
for worker in "${workers[@]}"; do wait "$worker"; done

[ "$(wc -l <"$scratch/results")" = "$count" ] || fail "not every change was tried"
survivors=$(grep -c NOBODY "$scratch/results" || true)
[ "$survivors" = 0 ] || { grep NOBODY "$scratch/results"; fail "$survivors of $count were not noticed"; }
printf 'all %s were noticed, in %s s\n' "$count" "$SECONDS"
