#!/usr/bin/env bash
# `make check`: format, lints, docs, dependency policy. Changes nothing; stops at the first failure.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh build

part() {
  local name=$1 start=$SECONDS
  shift
  printf '== %s\n' "$name"
  "$@" || { printf 'check: %s failed\n' "$name" >&2; exit 1; }
  printf -- '-- %s: %d s\n' "$name" $((SECONDS - start))
}

docs() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items --quiet; }
policy() {
  # Ours always runs; cargo-deny reads the same deny.toml where it is installed.
  cargo test --locked --quiet --workspace --test policy
  if cargo deny --version >/dev/null 2>&1; then
    cargo deny --offline --all-features check bans licenses sources
  else
    echo 'cargo-deny is not installed: licences, bans and sources were checked by tests/tests/policy.rs alone'
  fi
}

part format cargo fmt --all -- --check
part lints cargo clippy --locked --workspace --all-targets -- -D warnings
part docs docs
part 'dependency policy' policy
echo 'check: all good'
