#!/usr/bin/env bash
# `make test`: set-up, build, then every test, each store test and story on both databases.
# Prints the time per part, the count per database (which must be equal), and "N passed, N failed".
# Logs are kept in target/test-logs. Exit codes: 0 all passed, 1 a test failed or the counts differ, 69 set-up impossible.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=target/test-logs
mkdir -p "$logs" target/tmp
rm -f "$logs"/*.log
times=()

timed() {
  local name=$1 start=$SECONDS status=0
  shift
  printf '\n== %s\n' "$name"
  "$@" || status=$?
  times+=("$(printf '%-28s %4d s' "$name" $((SECONDS - start)))")
  return $status
}

# Private instances run as users of their own: they need a folder that others may enter.
reachable=$(readlink -f target/tmp)
while [ "$reachable" != / ]; do
  case $(stat -c %A "$reachable") in *x|*t) reachable=$(dirname "$reachable") ;; *) break ;; esac
done
if [ "$reachable" = / ]; then export TMPDIR=$PWD/target/tmp
else echo "test: $reachable is closed to other users: private PostgreSQL and postfix use ${TMPDIR:-/tmp}"; fi

timed 'set-up' scripts/setup.sh all || exit 69
timed 'build' cargo build --locked --workspace --all-targets || exit 1

with_postgres=target/debug/with-postgres
if cargo nextest --version >/dev/null 2>&1; then
  runner=("$with_postgres" cargo nextest run --locked --workspace --no-fail-fast --status-level pass --color never)
  core=(-E 'not package(e2e)') stories=(-E 'package(e2e)' -j 4)
else
  # Without nextest a hanging test has no limit of its own, so the whole run has one.
  runner=("$with_postgres" timeout 1800 cargo test --locked --no-fail-fast)
  core=(--workspace --exclude e2e) stories=(-p e2e)
fi
logged() {
  local log=$1
  shift
  "$@" 2>&1 | tee "$logs/$log.log" | grep --line-buffered -vE '^ *(PASS|Finished|Starting|Compiling|Running)|^test .*\.\.\. ok$|^running |^$|^-+$'
  return "${PIPESTATUS[0]}"
}
failed=0
timed 'tests beside the code' logged core "${runner[@]}" "${core[@]}" || failed=1
timed 'stories' logged stories "${runner[@]}" "${stories[@]}" || failed=1

passed_lines() { cat "$logs"/*.log | grep -E '^ *(PASS|SLOW-PASS|LEAK) \[|^test .* \.\.\. ok$'; }
failed_lines() { cat "$logs"/*.log | grep -E '^ *(FAIL|TIMEOUT|SIG[A-Z]+|ABORT|LEAK-FAIL) \[|^test .* \.\.\. FAILED$' | sed -E 's/\[[^]]*\] *//; s/\([ 0-9/]*\) *//' | sort -u; }
count() { passed_lines | grep -cE "(::|[[:space:]])$1::"; }
passed=$(passed_lines | wc -l)
broken=$(failed_lines | wc -l)
sqlite=$(count sqlite)
postgres=$(count postgres)

printf '\n== summary\n'
printf '%s\n' "${times[@]}"
printf 'on SQLite      %4d passed\non PostgreSQL  %4d passed\n' "$sqlite" "$postgres"
if [ "$broken" -gt 0 ]; then printf 'failed:\n'; failed_lines; fi
if [ "$sqlite" != "$postgres" ]; then printf 'the counts per database differ: every test that touches the store runs on both\n'; failed=1; fi
if [ "$failed" != 0 ] && [ "$broken" = 0 ]; then printf 'a part of the run failed outside its tests, see %s\n' "$logs"; fi
printf '%d passed, %d failed\n' "$passed" "$broken"
[ "$failed" = 0 ] && [ "$broken" = 0 ]
