#!/usr/bin/env bash
# `make demo`: from nothing to a critical ticket, on this machine, with the release binaries and public commands only.
# Enrols this machine as an appliance, takes down a business service that it started itself, and shows the ticket that opened by
# itself: grounds, clock, mail; then leaves the console running. Everything lies in .demo/ and is made anew each time.
# DEMO_EXIT=1 ends by itself after the ticket (for tests). Exit codes: 0 told, 1 something did not happen, 69 set-up impossible.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077

if [ -t 1 ]; then bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' blue=$'\e[36m' dim=$'\e[2m' off=$'\e[0m'
else bold='' red='' green='' blue='' dim='' off=''; fi
began=0
chapter() { printf '\n%s%s%s %s%s\n' "$bold$blue" "$1" "$off$bold" "$2" "$off"; }
tell() { printf '   %s\n' "$*"; }
good() { printf '   %s✓%s %s\n' "$green" "$off" "$*"; }
fail() { printf '   %s✗ %s%s\n' "$red" "$*" "$off" >&2; exit 1; }

scripts/setup.sh demo || exit 69
chapter '◆' 'Building the release binaries / 编译'
scripts/build.sh
began=$SECONDS

demo=$PWD/.demo
rm -rf "$demo"
mkdir -p "$demo"/{collector,agent/agent.d,mail,logs,tls}
collector=(target/release/mainstay-collector --config "$demo/collector.toml")
agent=(target/agent/mainstay-agent --config "$demo/agent/agent.toml")
pids=()
stop() {
  trap - EXIT INT TERM
  [ ${#pids[@]} -gt 0 ] && printf '\n%sstopping / 正在停止%s\n' "$dim" "$off"
  # The agent first: it says goodbye to a collector that is still there.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[$i]}" 2>/dev/null && wait "${pids[$i]}" 2>/dev/null || true
  done
}
trap stop EXIT
trap 'exit 130' INT TERM

start() { # NAME COMMAND...: in the background, its output in logs/NAME.log
  local name=$1
  shift
  "$@" >"$demo/logs/$name.log" 2>&1 </dev/null &
  pids+=($!)
}
wait_for() { # SECONDS WHAT COMMAND...
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || { tail -n 20 "$demo"/logs/*.log >&2; fail "did not happen in time: $what"; }
    sleep 0.2
  done
}
free_port() { /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
field() { /usr/bin/python3 -c 'import json, sys; value = json.load(sys.stdin)
for key in sys.argv[1].split("."): value = value[int(key) if key.isdigit() else key]
print(value)' "$1"; }

chapter 1 'The vendor: a mail server and a collector / 供应商一侧'
agents_port=$(free_port) web_port=${DEMO_WEB_PORT:-$(free_port)} mail_port=$(free_port) shop_port=$(free_port)
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
  -keyout "$demo/tls/mail.key" -out "$demo/tls/mail.pem" 2>/dev/null
start mail /usr/bin/python3 -m aiosmtpd -n -u -c aiosmtpd.handlers.Mailbox -l "localhost:$mail_port" \
  --tlscert "$demo/tls/mail.pem" --tlskey "$demo/tls/mail.key" "$demo/mail/box"
# The shipped settings, with this machine's places put in.
sed -e 's|^name = .*|name = "Mainstay demo"|' -e 's|^language = .*|language = "en"|' \
  -e "s|/var/lib/mainstay-collector|$demo/collector|" \
  -e "s|^listen = \"0.0.0.0:8443\"|listen = \"127.0.0.1:$agents_port\"|" -e "s|https://support.example.com:8443|https://127.0.0.1:$agents_port|" \
  -e "s|^listen = \"127.0.0.1:8080\"|listen = \"127.0.0.1:$web_port\"|" -e "s|^public_url = .*|public_url = \"http://127.0.0.1:$web_port\"|" \
  -e 's|^server = .*|server = "localhost"|' -e "s|^port = 587|port = $mail_port|" -e "s|^# ca_file = .*|ca_file = \"$demo/tls/mail.pem\"|" \
  -e '/^username = /d' -e '/^password_file = /d' packaging/collector/collector.toml >"$demo/collector.toml"
head -c 18 /dev/urandom | base64 >"$demo/passphrase"
"${collector[@]}" init --json --root-key-out "$demo/root-ca.key.age" --passphrase-file "$demo/passphrase" \
  --operator operator --email operator@vendor.example >"$demo/operator.json" 2>>"$demo/logs/commands.log"
{
  "${collector[@]}" customer add bank --name '示例银行 Example Bank' --language en
  "${collector[@]}" site add hq --customer bank --name 'Machine room 1' --city Chongqing
  "${collector[@]}" contact add --customer bank --name 'Li Wei' --email li.wei@bank.example --language en
} >>"$demo/logs/commands.log" 2>&1
"${collector[@]}" user add --json engineer --name 'Chen Yu' --email chen.yu@vendor.example --role system_engineer --language en \
  --serves bank >"$demo/engineer.json" 2>>"$demo/logs/commands.log"
start collector "${collector[@]}" serve
wait_for 30 'the collector answers' curl -fsS "http://127.0.0.1:$web_port/healthz"
good "collector up: agents on $agents_port (mutual TLS), console on $web_port; mail by STARTTLS"

chapter 2 'The customer: a business service and an appliance / 客户一侧'
mkdir -p "$demo/shop"
echo 'payments are being taken' >"$demo/shop/index.html"
start_service() {
  /usr/bin/python3 -m http.server --bind 127.0.0.1 --directory "$demo/shop" "$shop_port" >"$demo/logs/service.log" 2>&1 </dev/null &
  service=$!
}
start_service
trap 'kill $service 2>/dev/null || true; stop' EXIT
wait_for 10 'the business service answers' curl -fsS "http://127.0.0.1:$shop_port/"
cp packaging/agent/agent.toml "$demo/agent/agent.toml"
cat >"$demo/agent/agent.d/50-demo.toml" <<TOML
[agent]
state_dir = "$demo/agent/state"

[[service]]
name = "payments"
title = "Card payments / 银行卡支付"
interval = "10s"

[[service.check]]
name = "front"
kind = "http"
url = "http://127.0.0.1:$shop_port/"
expect_body = "payments are being taken"
TOML
"${agent[@]}" check-config >>"$demo/logs/commands.log" 2>&1 || { cat "$demo/logs/commands.log"; fail 'the agent refuses its configuration'; }
"${collector[@]}" join-token create --customer bank --site hq --product Gateway --duty single 2>>"$demo/logs/commands.log" |
  "${agent[@]}" enroll >>"$demo/logs/commands.log" 2>&1 || { tail "$demo/logs/commands.log"; fail 'enrolment'; }
good 'this machine is enrolled: key made here, certificate signed by the vendor'
start agent "${agent[@]}" run
service_is() { [ "$("${agent[@]}" status --json | field services.payments.state)" = "$1" ]; }
wait_for 40 'the agent finds the service up' service_is up
"${agent[@]}" test >"$demo/test.txt" 2>&1 || { cat "$demo/test.txt"; fail 'the test message'; }
good 'payments: up; a marked test message went end to end and its receipt is signed'

chapter 3 'The service dies. Nobody calls. / 业务中断，无人报修'
kill "$service"
wait "$service" 2>/dev/null || true
down_at=$SECONDS
tell "stopped the service on port $shop_port; the agent asks every 10 s and retries twice, 10 s apart ..."
first_ticket() { "${collector[@]}" ticket list --json | field 0.ticket_id; }
wait_for 60 'a ticket opens by itself' first_ticket
ticket=$(first_ticket)
good "${red}${bold}$ticket opened by itself$off after $((SECONDS - down_at)) s"
mails() { [ "$(find "$demo/mail/box/new" -type f 2>/dev/null | wc -l)" -ge 2 ]; }
wait_for 20 'the mails are accepted' mails
"${collector[@]}" ticket show "$ticket"

chapter 4 'What went out / 发出的邮件'
/usr/bin/python3 - "$demo/mail/box/new" <<'PYTHON'
import email, email.policy, glob, sys
for number, path in enumerate(sorted(glob.glob(sys.argv[1] + "/*"))):
    with open(path, "rb") as file:
        mail = email.message_from_binary_file(file, policy=email.policy.default)
    print(f"   To: {mail['To']}   Subject: {mail['Subject']}")
    if number == 0:
        for line in mail.get_body(("plain",)).get_content().splitlines():
            print("   │ " + line)
PYTHON

chapter ★ "The console / 控制台   $dim(story told in $((SECONDS - began)) s)$off"
password=$(field password <"$demo/engineer.json")
totp_secret=$(field totp_secret <"$demo/engineer.json")
totp() {
  /usr/bin/python3 -c 'import base64, hmac, struct, sys, time
key = base64.b32decode(sys.argv[1] + "=" * (-len(sys.argv[1]) % 8))
digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), "sha1")
at = digest[-1] & 15
print("%06d" % ((struct.unpack(">I", digest[at:at + 4])[0] & 0x7FFFFFFF) % 1000000))' "$totp_secret"
}
tell "${bold}http://127.0.0.1:$web_port/tickets/$ticket$off"
tell "user name ${bold}engineer$off   password ${bold}$password$off   code now ${bold}$(totp)$off"
tell "${dim}authenticator secret $totp_secret; files in .demo/$off"
if [ "${DEMO_EXIT:-}" = 1 ] || [ ! -t 0 ]; then
  [ "${DEMO_EXIT:-}" = 1 ] && exit 0
  tell 'Stop with Ctrl-C.'
  wait
  exit 0
fi
while true; do
  printf '   [c] a fresh code   [s] bring the service back   [q] stop everything: '
  read -r -n 1 key || break
  printf '\n'
  case $key in
    c) tell "code now ${bold}$(totp)$off" ;;
    s) if kill -0 "$service" 2>/dev/null; then tell 'the service is up already'
       else start_service; tell 'the service is back: the ticket will say recovered in a few seconds'; fi ;;
    q) break ;;
  esac
done
