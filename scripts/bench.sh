#!/usr/bin/env bash
# `make bench`: reports per second at the collector on SQLite and PostgreSQL (with fsync), beside Alertmanager and an endpoint that
# keeps nothing, in one run; then what the agent costs beside its peers, and what the collector costs as it grows.
# `make bench PART=NAME` runs one part: ingest, agent, growth, sizing, ticket, polls, patch.
# BENCH_SECONDS (10) per endpoint, BENCH_APPLIANCES (2000), BENCH_AT_ONCE (64) reports under way, BENCH_ONLY
# (null,alertmanager,sqlite,postgres). The release binaries; results also in .bench/.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  ''|ingest) ;;
  agent) exec scripts/bench-agent.sh ;;
  patch) exec scripts/bench-patch.sh ;;
  *) exec scripts/bench-collector.sh "$@" ;;
esac
scripts/setup.sh build database peers
cargo build --release --locked -p mainstay-collector -p e2e --bins
mkdir -p .bench
printf '%s, %s cores, load average %s\n' "$(uname -srm)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" | tee .bench/ingest.txt
target/release/with-postgres --durable target/release/bench-ingest \
  "${BENCH_SECONDS:-10}" "${BENCH_APPLIANCES:-2000}" "${BENCH_AT_ONCE:-64}" | tee -a .bench/ingest.txt
[ "${1:-}" = ingest ] && exit 0
scripts/bench-agent.sh
scripts/bench-collector.sh
scripts/bench-patch.sh
