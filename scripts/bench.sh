#!/usr/bin/env bash
# `make bench`: reports per second at the collector on SQLite and PostgreSQL, beside an endpoint that keeps nothing, in one run.
# BENCH_SECONDS (10) per endpoint, BENCH_PEERS (64) at once. The release binaries; results also in .bench/ingest.txt.
# Then what the agent costs, and what the collector costs as it grows. `make bench PART=NAME` for one: ingest, agent, growth, sizing, ticket, polls.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  ''|ingest) ;;
  agent) exec scripts/bench-agent.sh ;;
  *) exec scripts/bench-collector.sh "$@" ;;
esac
scripts/setup.sh build database
cargo build --release --locked -p mainstay-collector -p e2e --bins
mkdir -p .bench
printf '%s, %s cores, load average %s\n' "$(uname -srm)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" | tee .bench/ingest.txt
target/release/bench-ingest "${BENCH_SECONDS:-10}" "${BENCH_PEERS:-64}" | tee -a .bench/ingest.txt
[ "${1:-}" = ingest ] && exit 0
scripts/bench-agent.sh
scripts/bench-collector.sh
