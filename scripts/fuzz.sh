#!/usr/bin/env bash
# Fuzzes every parser of fuzz/fuzz_targets for so many seconds each, from the kept corpus; what it finds lies in fuzz/artifacts.
# Usage: scripts/fuzz.sh [SECONDS=60] [TARGET...]
# Needs a nightly toolchain and cargo-fuzz (`cargo +nightly install --locked cargo-fuzz`); where one is missing it says so and ends with 0:
# the property tests beside the parsers run everywhere. Exit codes: 0 nothing found or not run, 1 a parser failed.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
targets=("${@:2}")
if [ ${#targets[@]} = 0 ]; then
  for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
cargo +nightly fuzz --version >/dev/null 2>&1 || {
  echo 'fuzz: not run: no nightly toolchain with cargo-fuzz here'
  echo 'soak: part=fuzz points=0 seeds=0 losses=0 (not run)'
  exit 0
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
for target in "${targets[@]}"; do
  # What is new goes into a folder of its own: the kept corpus grows by hand only.
  mkdir -p "$work/$target" "fuzz/corpus/$target"
  log=$work/$target.log
  cargo +nightly fuzz run "$target" "$work/$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -print_final_stats=1 >"$log" 2>&1
  status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if [ $status = 0 ]; then losses=0; else losses=1 failed=1; tail -n 40 "$log"; fi
  printf 'soak: part=fuzz-%s points=%s seeds=%s losses=%s\n' "$target" "${runs:-0}" "$(find "fuzz/corpus/$target" -type f | wc -l)" "$losses"
done
exit $failed
