#!/usr/bin/env bash
# `make build`: the release binaries, target/agent/mainstay-agent, target/release/mainstay-collector and mainstay-release, side by side.
# The agent is linked statically against musl where that target can be had, else as this machine links; the output says which.
# Usage: scripts/build.sh [agent|collector]      Exit codes: 0 built, 69 set-up impossible, else cargo's.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build || exit 69

static_target() { # its name, if it can be built for here
  local target
  target=$(uname -m)-unknown-linux-musl
  command -v musl-gcc >/dev/null 2>&1 || scripts/setup.sh static >&2 || return 1
  if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    command -v rustup >/dev/null 2>&1 && timeout 300 rustup target add "$target" >&2 || return 1
  fi
  echo "$target"
}

agent() {
  local target made=target/agent/mainstay-agent
  if target=$(static_target); then
    # The agent compresses small reports at level 3 and unpacks: zstd's slow searches would be 0.15 MB that it never runs.
    local search slow=
    for search in GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA; do slow+=" -DZSTD_EXCLUDE_${search}_BLOCK_COMPRESSOR"; done
    export "CFLAGS_${target//-/_}=${slow# }"
    cargo build --profile agent --locked --target "$target" -p mainstay-agent
    mkdir -p target/agent
    cp --remove-destination --preserve=timestamps "target/$target/agent/mainstay-agent" "$made"
    echo "$made: static, $target, $(stat -c %s "$made") bytes"
  else
    cargo build --profile agent --locked -p mainstay-agent
    echo "$made: linked dynamically (no musl target or no musl-gcc here), $(stat -c %s "$made") bytes"
  fi
}
collector() { cargo build --release --locked -p mainstay-collector -p mainstay-release; }

case "${1:-both}" in
  agent) agent ;;
  collector) collector ;;
  both)
    # Whole-program optimisation keeps one core busy: the other builds the collector meanwhile.
    agent &
    collector || { status=$?; wait; exit $status; }
    wait $! ;;
  *) echo 'usage: scripts/build.sh [agent|collector]' >&2; exit 64 ;;
esac
