#!/usr/bin/env bash
# What the collector costs as it grows: `make bench PART=growth|sizing|ticket|polls` (several: PART="growth polls"), or all of them, a
# tenth as large, as part of `make bench`. Each prints its table and keeps it in .bench/PART.txt; the release binaries, both databases.
#   growth  pages, reports and rest with 10, 1,000 and BENCH_APPLIANCES (100,000) appliances, up to BENCH_TICKETS (1,000,000) tickets:
#           about 15 minutes and 12 GB under TMPDIR
#   sizing  bytes an appliance and day                                                                                 1 minute
#   ticket  from a fault to its ticket and to its mail's acceptance, at rest and beside a load; BENCH_FAULTS (200)     3 minutes
#   polls   BENCH_POLLS (10,000) agents waiting, half of them coming back in one second                                5 minutes
# BENCH_ENGINES (sqlite,postgres) leaves one out.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then
  set -- growth sizing ticket polls
  export BENCH_APPLIANCES=${BENCH_APPLIANCES:-10000} BENCH_TICKETS=${BENCH_TICKETS:-100000} BENCH_POLLS=${BENCH_POLLS:-1000}
fi
scripts/setup.sh build database
cargo build --release --locked -p mainstay-collector -p e2e --bins
mkdir -p .bench
for part in "$@"; do
  printf '%s, %s cores, load average %s\n' "$(uname -srm)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" | tee ".bench/$part.txt"
  target/release/with-postgres --durable target/release/bench-collector "$part" | tee -a ".bench/$part.txt"
done
