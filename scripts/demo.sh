#!/usr/bin/env bash
# `make demo`: from nothing to a critical ticket on this machine: release binaries, shipped configuration, public commands only.
# Everything lies in .demo/ (made anew each time). Leaves the console running until Enter or Ctrl-C; DEMO_EXIT=1 ends by itself.
# Exit codes: 0 the story was told, 1 it was not (says where to look), 69 something is missing on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
demo=$top/.demo
bold='' red='' green='' dim='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' red=$'\e[1;31m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'; fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '  %s%s%s\n' "$dim" "$*" "$plain"; }
good() { printf '  %s✓%s %s\n' "$green" "$plain" "$*"; }
fail() {
  printf '\n%sdemo: %s%s\n' "$red" "$*" "$plain" >&2
  for log in "$demo"/*.log; do [ -s "$log" ] && printf -- '--- the end of %s\n%s\n' "$log" "$(tail -n 8 "$log")" >&2; done
  exit 1
}
# Asks a command again until it succeeds: `wait_for SECONDS WHAT COMMAND..`.
wait_for() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || fail "waited in vain for $what"
    sleep 0.2
  done
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

pids=()
run_aside() { # NAME COMMAND..: started, its output in .demo/NAME.log, stopped at the end
  local name=$1
  shift
  "$@" >"$demo/$name.log" 2>&1 </dev/null &
  pids+=("$!")
}
stop_all() {
  trap - EXIT INT TERM
  # The agent first: it says goodbye while the collector still listens.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || continue
    for _ in {1..150}; do kill -0 "${pids[i]}" 2>/dev/null || break; sleep 0.1; done
    kill -9 "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
}

# --- 1. what it needs -------------------------------------------------------------------------------------------------
scripts/setup.sh build mail demo
[ "$(id -u)" = 0 ] || { echo 'demo: run it as root: the private mail server changes users' >&2; exit 69; }
step '1  Build the release binaries · 构建'
cargo build --release --locked -p mainstay-agent -p mainstay-collector
collector=$top/target/release/mainstay-collector
agent=$top/target/release/mainstay-agent
began=$SECONDS

if [ -f "$demo/pid" ] && kill -0 "$(cat "$demo/pid")" 2>/dev/null; then
  echo "demo: another one runs in $demo (process $(cat "$demo/pid")): stop it first" >&2
  exit 1
fi
rm -rf "$demo"
mkdir -p "$demo"/agent/agent.d "$demo"/business
chmod 755 "$demo"
echo $$ >"$demo/pid"
trap stop_all EXIT
trap 'echo; exit 130' INT TERM
mail_port=$(free_port) agents_port=$(free_port) web_port=$(free_port) business_port=$(free_port)

# --- 2. the vendor's side ---------------------------------------------------------------------------------------------
step '2  The vendor: a mail server and a collector · 供应商：邮件服务器与收集端'
mail=$demo/mail
reachable=$demo
while [ "$reachable" != / ]; do
  case $(stat -c %A "$reachable") in *x|*t) reachable=$(dirname "$reachable") ;; *) break ;; esac
done
if [ "$reachable" != / ]; then
  # postfix's users can't enter this folder: its queue goes to a temporary one.
  mail=$(mktemp -d -t mainstay-demo-mail.XXXXXX)
  trap 'stop_all; rm -rf "$mail"' EXIT
fi
run_aside mail scripts/mail-server.sh "$mail" "$mail_port"
wait_for 30 'the mail server' bash -c "exec 3<>/dev/tcp/127.0.0.1/$mail_port && head -c 3 <&3 | grep -q 220"
good "private mail server on 127.0.0.1:$mail_port (STARTTLS), mailboxes in $mail"

# The shipped file, with this machine's folders, ports and mail server in place of the examples.
sed -e "s|^dir = .*|dir = \"$demo/collector\"|" \
    -e "s|^url = \"sqlite:.*|url = \"sqlite:$demo/collector/collector.db\"|" \
    -e "s|^addresses = .*|addresses = [\"https://127.0.0.1:$agents_port\"]|" \
    -e "s|^listen = \".*:8443\"|listen = \"127.0.0.1:$agents_port\"|" \
    -e "s|^listen = \".*:8080\"|listen = \"127.0.0.1:$web_port\"|" \
    -e "s|^public_url = .*|public_url = \"http://127.0.0.1:$web_port\"|" \
    -e 's|^server = .*|server = "127.0.0.1"|' \
    -e "s|^port = .*|port = $mail_port|" \
    -e "s|^# ca_file = .*|ca_file = \"$mail/ca.pem\"|" \
    -e '/^username = /d' -e '/^password_file = /d' \
    -e 's|^from = .*|from = "Mainstay <support@test.invalid>"|' \
    packaging/collector/collector.toml >"$demo/collector.toml"
ask() { "$collector" --config "$demo/collector.toml" "$@" 2>>"$demo/commands.log"; }
head -c 24 /dev/urandom | base64 >"$demo/passphrase"
ask check-config >/dev/null || fail 'check-config'
ask --json init --root-key-out "$demo/root-key.age" --passphrase-file "$demo/passphrase" \
  --operator operator --email operator@test.invalid >/dev/null || fail 'init'
ask customer add chongqing-bank --name '重庆示例银行' || fail 'customer add'
ask site add hq --customer chongqing-bank --name '总行机房' --city 重庆 || fail 'site add'
ask contact add --customer chongqing-bank --site hq --name 王工 --email admin@test.invalid || fail 'contact add'
access=$(ask --json user add lin --name 林工程师 --email lin@test.invalid --role system_engineer --serves chongqing-bank) || fail 'user add'
run_aside collector "$collector" --config "$demo/collector.toml" serve
wait_for 30 'the collector' curl -fsS --noproxy '*' "http://127.0.0.1:$web_port/healthz"
good 'collector founded and serving: agents and browsers on listeners of their own'

# --- 3. the customer's side -------------------------------------------------------------------------------------------
step '3  The customer: this machine becomes an appliance · 客户：本机接入'
cp packaging/agent/agent.toml "$demo/agent/agent.toml"
sed -i "s|^state_dir = .*|state_dir = \"$demo/agent/state\"|" "$demo/agent/agent.toml"
cat >"$demo/agent/agent.d/core-business.toml" <<TOML
# The drop-in that declares what the customer's business needs from this machine.
[[service]]
name = "core-business"
title = "核心业务"
interval = "10s"

[[service.check]]
name = "page"
kind = "http"
url = "http://127.0.0.1:$business_port/"
TOML
sed 's/^/  │ /' "$demo/agent/agent.d/core-business.toml"
echo '核心业务 core business' >"$demo/business/index.html"
(cd "$demo/business" && exec python3 -m http.server --bind 127.0.0.1 "$business_port") >"$demo/business.log" 2>&1 </dev/null &
business=$!
pids+=("$business")
box() { "$agent" --config "$demo/agent/agent.toml" "$@"; }
box check-config >>"$demo/commands.log" 2>&1 || fail 'check-config of the agent'
ask join-token create --customer chongqing-bank --site hq --product gateway --duty single |
  box enroll >>"$demo/commands.log" 2>&1 || fail 'enroll'
run_aside agent "$agent" --config "$demo/agent/agent.toml" run
service_is_up() { box status --json | grep -Eq '"core-business"[^}]*"up"'; }
wait_for 40 'the business service to be seen up' service_is_up
good 'enrolled with a one-use join string, running; core-business is up'
box status || true

# --- 4. the fault -----------------------------------------------------------------------------------------------------
step '4  The business service dies · 业务中断'
kill "$business"
wait "$business" 2>/dev/null || true
died=$SECONDS
printf '  %s✗%s port %s refuses connections; nobody calls anyone. The agent checks every 10 s and asks twice more.\n' "$red" "$plain" "$business_port"
has_mail() { [ "$(find "$mail/vmail" -type f -path '*/new/*' 2>/dev/null | wc -l)" -ge 2 ]; }
wait_for 90 'the notices' has_mail
step "5  The ticket opened by itself, $((SECONDS - died)) s after the service died · 工单自动建立"
python3 scripts/show-mail.py "$mail/vmail" lin@test.invalid | sed "s/^/  │ /"
ticket=$(python3 scripts/show-mail.py "$mail/vmail" lin@test.invalid | grep -oE 'T-[0-9]+' | head -n 1)
step "6  Its clock: mainstay-collector explain $ticket · 响应时钟"
ask explain "$ticket" | sed 's/^/  │ /' || fail 'explain'
printf '\n%sThe whole story took %d s.%s\n' "$bold" $((SECONDS - began)) "$plain"

# --- 5. left running --------------------------------------------------------------------------------------------------
password=$(field password <<<"$access")
secret=$(field totp_secret <<<"$access")
step '7  The console is running · 控制台'
printf '  address 地址   %shttp://127.0.0.1:%s%s\n  user 用户      lin\n  password 口令  %s\n' "$bold" "$web_port" "$plain" "$password"
if [ -n "${DEMO_EXIT:-}" ]; then
  printf '  code 动态码    %s\n' "$(python3 scripts/totp.py "$secret")"
else
  printf '\n  Enter ends the demo · 按回车结束\n'
  while true; do
    printf '\r  code 动态码    %s%s%s ' "$bold" "$(python3 scripts/totp.py "$secret")" "$plain"
    if read -r -t 2; then break; elif [ $? -le 128 ]; then break; fi
  done
  echo
fi
stop_all
for name in agent collector; do good "$name stopped cleanly"; done
rm -f "$demo/pid"
[ "$mail" = "$demo/mail" ] || rm -rf "$mail"
