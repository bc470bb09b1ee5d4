#!/usr/bin/env bash
# What the agent costs on an appliance, beside collectd, monit, node_exporter and zabbix_agentd, in one run (part of `make bench`).
# BENCH_WINDOW (240) seconds after BENCH_WARMUP (60); --json prints JSON. Also in .bench/agent.txt or .bench/agent.json.
# As root the agent's state lies on an ext4 image of its own, so that what reaches the block layer can be counted.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build database peers
[ "${1:-}" = --json ] && result=.bench/agent.json || result=.bench/agent.txt
mkdir -p .bench/bin
: >"$result"
scripts/build.sh | { [ "${1:-}" = --json ] && cat >&2 || tee "$result"; }
cargo build --release --locked -p e2e --bin bench-agent
ln -sf ../../target/agent/mainstay-agent ../../target/release/mainstay-collector .bench/bin/

disk=$(mktemp -d)
unmount() { mountpoint -q "$disk" && umount "$disk"; rmdir "$disk"; rm -f .bench/disk.img; }
trap unmount EXIT
truncate -s 128M .bench/disk.img
if mkfs.ext4 -q .bench/disk.img && mount -o loop,noatime .bench/disk.img "$disk" 2>/dev/null; then
  export BENCH_DISK=$disk
else
  echo 'no loop device can be mounted here: writes at the block layer are not measured' >&2
fi
printf '%s, %s cores, load average %s\n' "$(uname -srm)" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" | { [ "${1:-}" = --json ] && cat >&2 || tee -a "$result"; }
MAINSTAY_BIN_DIR=$PWD/.bench/bin target/release/bench-agent "$@" | tee -a "$result"
