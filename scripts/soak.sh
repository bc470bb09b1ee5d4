#!/usr/bin/env bash
# `make soak`: the long proofs, whole, of which `make test` runs a seeded slice. Minutes to hours: run `scripts/soak.sh --help` first.
# Usage: scripts/soak.sh [--help | --list | PART...]      make soak PART="kills power-cuts"
# Each part runs with MAINSTAY_SOAK=1 and prints, per thing proved, one line
#   soak: part=NAME points=N seeds=N losses=N
# Its output and the closing table are kept in target/soak. MAINSTAY_SEED=n replays one seed.
# Exit codes: 0 nothing lost, 1 a loss, a failed part, or one that printed no such line; 64 unknown part; 69 set-up impossible.
set -uo pipefail
cd "$(dirname "$0")/.."

names=() minutes=() commands=()
part() {
  names+=("$1")
  minutes+=("$2")
  shift 2
  commands+=("$(printf '%q ' "$@")")
}

# Tests of a package by a part of their name; without nextest, by cargo's own runner.
proof() {
  local package=$1 filter=$2
  if cargo nextest --version >/dev/null 2>&1; then
    "${with_postgres[@]}" cargo nextest run --profile soak --locked -p "$package" --no-capture --color never "$filter"
  else
    "${with_postgres[@]}" cargo test --locked -p "$package" "$filter" -- --nocapture --test-threads 1
  fi
}

# The list: name, minutes on two quiet cores, command (`proof PACKAGE FILTER`, or anything that prints the line).

# The real agent.
part kills 15 proof e2e agent_kills
part random-kills 5 proof e2e agent_random_kills
part power-cuts 10 proof e2e agent_power_cuts
part bad-disks 5 proof e2e agent_bad_disks

# The real helper, and its engine on a simulated disk.
part patch-disk 105 proof mainstay-agent helper::tests::sweep
part patch-disk-agent 13 proof mainstay-agent helper::tests::own_update
part helper-kills 38 proof e2e helper_kills
part helper-power-cuts 30 proof e2e helper_power_cuts

# The spool and the parsers.
part spool-disk 15 proof mainstay-agent spool::tests::sweep
part spool-damage 6 proof mainstay-agent spool::tests::damage
part spool-backlog 8 proof mainstay-agent spool::tests::backlog
part spool-outage 1 proof mainstay-agent watch::tests::outage
part parsers 7 scripts/fuzz.sh 60

# The collector and its databases.
part collector-kills 30 proof e2e collector_kills
part failing-databases 20 proof e2e failing_databases
part two-nodes 25 proof e2e two_nodes

# Whole stories.
part stories 90 proof mainstay-collector whole_stories

# End of the list.

usage() {
  sed -n '2,7s/^# //p' "$0"
  printf '\n%-24s %s\n' part 'minutes on two quiet cores'
  for at in "${!names[@]}"; do printf '%-24s %7s\n' "${names[at]}" "${minutes[at]}"; done
}
index_of() {
  for at in "${!names[@]}"; do [ "${names[at]}" = "$1" ] && { echo "$at"; return 0; }; done
  printf 'soak: unknown part "%s": expected %s\n' "$1" "${names[*]}" >&2
  return 64
}

case "${1:-}" in
  --help|-h) usage; exit 0 ;;
  --list) printf '%s\n' "${names[@]}"; exit 0 ;;
esac
chosen=()
for name in "$@"; do at=$(index_of "$name") || exit 64; chosen+=("$at"); done
[ ${#chosen[@]} -gt 0 ] || chosen=("${!names[@]}")

results=target/soak
mkdir -p "$results" target/tmp
scripts/setup.sh build database misc disks || exit 69
printf '== build\n'
cargo build --locked --workspace --all-targets || exit 1
with_postgres=(target/debug/with-postgres)
export MAINSTAY_SOAK=1
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)

table=() failed=0
row() { table+=("$(printf '%-28s %10s %8s %8s %8s  %s' "$@")"); }
for at in "${chosen[@]}"; do
  name=${names[at]} log=$results/${names[at]}.log start=$SECONDS status=0
  printf '\n== %s (about %s minutes) %s\n' "$name" "${minutes[at]}" "$(date -u +%H:%M:%S)"
  eval "${commands[at]}" >"$log" 2>&1 &
  running=$!
  trap 'kill "$running" 2>/dev/null; exit 130' INT TERM
  # What the part tells of its progress is shown as it comes; all of its output stays in the log.
  tail -n +1 -f --pid="$running" "$log" 2>/dev/null | grep --line-buffered -E '^(soak: |progress: |replay: )'
  wait "$running" || status=$?
  trap - INT TERM
  took="$((SECONDS - start)) s" lines=0
  while read -r line; do
    value() { sed -nE "s/.*[ ]$1=([^ ]*).*/\1/p" <<<"$line"; }
    losses=$(value losses)
    lines=$((lines + 1))
    row "$(value part)" "$(value points)" "$(value seeds)" "$losses" "$took" ''
    [ "$losses" = 0 ] || failed=1
  done < <(grep -E '^soak: part=' "$log")
  if [ "$status" != 0 ]; then
    row "$name" - - - "$took" "failed, see $log"
    tail -n 30 "$log"
    failed=1
  elif [ "$lines" = 0 ]; then
    row "$name" - - - "$took" "proved nothing: no \"soak:\" line in $log"
    failed=1
  fi
done

{
  printf 'soak of %s, begun %s, %s, %s cores, %s\n\n' \
    "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$began" "$(uname -srm)" "$(nproc)" "$(date -u +%H:%M:%SZ)"
  printf '%-28s %10s %8s %8s %8s\n' part points seeds losses time
  printf '%s\n' "${table[@]}"
} | tee "$results/summary.txt"
exit "$failed"
