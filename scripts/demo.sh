#!/usr/bin/env bash
# `make demo`: from nothing to a critical ticket, and from there to the repair, on this machine, with the release binaries and public commands only.
# Enrols this machine as an appliance, takes down a business service that it started itself, and shows the ticket that opened by
# itself: grounds, clock, mail. An action is tried; the vendor signs a repair; its link is approved with the code that the box shows; the appliance
# installs it and the ticket recovers; a bad patch goes back by itself. Then the console is left running. Everything lies in .demo/ and is made anew each
# time. What installs runs as root: without root the story ends at the ticket, and says so.
# DEMO_EXIT=1 ends by itself after the story (for tests). Exit codes: 0 told, 1 something did not happen, 69 set-up impossible.
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
mkdir -p "$demo"/{collector,agent/agent.d,mail,logs,tls,vendor,repository,box}
release=target/release/mainstay-release
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
wait_for() { # SECONDS WHAT COMMAND...: in a terminal it says what it waits for
  local began_at=$SECONDS limit=$((SECONDS + $1)) what=$2 said=''
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $limit ] || { tail -n 20 "$demo"/logs/*.log >&2; fail "did not happen in time: $what"; }
    if [ -t 1 ] && [ $((SECONDS - began_at)) -ge 2 ]; then
      said=1
      printf '\r   %s... %s (%s s)%s\e[K' "$dim" "$what" $((SECONDS - began_at)) "$off"
    fi
    sleep 0.2
  done
  [ -z "$said" ] || printf '\r\e[K'
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
  -e "s|^# \[releases\]|[releases]|" -e "s|^# dir = \"/srv/mainstay-releases\"|dir = \"$demo/repository\"|" \
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
# The product that the vendor sells: a tree of files, `current` and what the box's helper may do with it.
version() { # VERSION FAULT: a tree with the service that fails in this way
  mkdir -p "$demo/vendor/tree-$1/bin"
  cat >"$demo/vendor/tree-$1/bin/payments" <<PYTHON
#!/usr/bin/python3
# Card payments $1.
import http.server, pathlib, sys
book = pathlib.Path("$demo/box/book")
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = $3
        self.send_response(200 if good else 500)
        self.end_headers()
        self.wfile.write(b"payments are being taken" if good else b"no")
    def log_message(self, *_): pass
if $2: sys.exit("the book has more than 100 lines: this version can't read it")
http.server.HTTPServer(("127.0.0.1", $shop_port), Page).serve_forever()
PYTHON
  chmod 755 "$demo/vendor/tree-$1/bin/payments"
}
version 2.0.0 'len(book.read_text().splitlines()) > 100' True
version 2.1.0 False True
version 2.2.0 False False
mkdir -p "$demo/box/opt/releases"
cp -r "$demo/vendor/tree-2.0.0" "$demo/box/opt/releases/2.0.0-factory"
ln -s releases/2.0.0-factory "$demo/box/opt/current"
seq 100 >"$demo/box/book"
cat >"$demo/box/service" <<'SH'
#!/bin/sh
# start | stop: how this box runs its business service.
here=$(dirname "$(readlink -f "$0")")
if [ -f "$here/pid" ]; then kill "$(cat "$here/pid")" 2>/dev/null; rm -f "$here/pid"; fi
[ "$1" = start ] || exit 0
setsid "$here/opt/current/bin/payments" >"$here/service.log" 2>&1 </dev/null &
echo $! >"$here/pid"
SH
chmod 755 "$demo/box/service"
"$demo/box/service" start
trap '"$demo/box/service" stop; stop' EXIT
wait_for 10 'the business service answers' curl -fsS "http://127.0.0.1:$shop_port/"
cp packaging/agent/agent.toml "$demo/agent/agent.toml"
cat >"$demo/agent/agent.d/50-demo.toml" <<TOML
[agent]
state_dir = "$demo/agent/state"

[patches]
helper_socket = "$demo/box/helper.sock"
root = "$demo/repository/metadata/1.root.json"

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
field_of() { /usr/bin/python3 -c 'import json, sys; print([a[sys.argv[2]] for a in json.load(sys.stdin) if a[sys.argv[1]]][0])' "$@"; }
if [ "$(id -u)" = 0 ]; then
  # The vendor's signers: three keys, two of which must sign; on three machines in real life. The box gets the root when it is made.
  vendor=$demo/vendor
  for signer in anna ben cleo; do
    head -c 18 /dev/urandom | base64 >"$vendor/$signer.pass"
    "$release" keys new --out "$vendor/$signer.key" --name "$signer" --passphrase-file "$vendor/$signer.pass" >>"$demo/logs/commands.log" 2>&1
  done
  "${collector[@]}" releases keygen >"$vendor/online.json" 2>>"$demo/logs/commands.log"
  sign_and_publish() { # BUNDLE: two of the three sign it
    for signer in anna cleo; do
      "$release" sign "$1" --key "$vendor/$signer.key" --passphrase-file "$vendor/$signer.pass" --yes
    done
    "$release" publish "$1" --repository "$demo/repository"
  }
  {
    "$release" init --repository "$demo/repository" --key "$vendor/anna.key.pub" --key "$vendor/ben.key.pub" --key "$vendor/cleo.key.pub" \
      --threshold 2 --product acme-gateway --online "$vendor/online.json" --out "$vendor/first.bundle"
    sign_and_publish "$vendor/first.bundle"
  } >>"$demo/logs/commands.log" 2>&1 || { tail "$demo/logs/commands.log"; fail "the vendor's first signatures"; }
  cat >"$demo/box/helper.toml" <<TOML
product = "acme-gateway"
hardware = "gw-2000"
version = "2.0.0"
root = "$demo/repository/metadata/1.root.json"
state_dir = "$demo/box/helper"
tree = "$demo/box/opt"
socket = "$demo/box/helper.sock"
reporter = "nobody"

[[service]]
name = "payments"
stop = ["$demo/box/service", "stop"]
start = ["$demo/box/service", "start"]
TOML
  start helper "${agent[@]}" --helper-config "$demo/box/helper.toml" helper
  wait_for 10 'the helper listens' test -S "$demo/box/helper.sock"
fi
start agent "${agent[@]}" run
service_is() { [ "$("${agent[@]}" status --json | field services.payments.state)" = "$1" ]; }
wait_for 40 'the agent finds the service up' service_is up
"${agent[@]}" test >"$demo/test.txt" 2>&1 || { cat "$demo/test.txt"; fail 'the test message'; }
good 'payments: up; a marked test message went end to end and its receipt is signed'

chapter 3 'The service dies. Nobody calls. / 业务中断，无人报修'
seq 101 >"$demo/box/book"
kill "$(cat "$demo/box/pid")"
down_at=$SECONDS
tell "the service on port $shop_port crashed; the agent asks every 10 s and retries twice, 10 s apart ..."
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

password=$(field password <"$demo/engineer.json")
totp_secret=$(field totp_secret <"$demo/engineer.json")
totp() {
  /usr/bin/python3 -c 'import base64, hmac, struct, sys, time
key = base64.b32decode(sys.argv[1] + "=" * (-len(sys.argv[1]) % 8))
digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30), "sha1")
at = digest[-1] & 15
print("%06d" % ((struct.unpack(">I", digest[at:at + 4])[0] & 0x7FFFFFFF) % 1000000))' "$totp_secret"
}
web=http://127.0.0.1:$web_port

patches() {
  # The engineer signs in as a browser would, and makes a token for the API.
  /usr/bin/python3 - "$web" "$password" "$totp_secret" >"$demo/token" <<'PYTHON'
import base64, hmac, http.cookiejar, re, struct, sys, time, urllib.parse, urllib.request
base, password, secret = sys.argv[1:]
browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
def code(steps=0):
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, struct.pack(">Q", int(time.time()) // 30 + steps), "sha1")
    at = digest[-1] & 15
    return "%06d" % ((struct.unpack(">I", digest[at:at + 4])[0] & 0x7FFFFFFF) % 1000000)
def submit(page, to, **fields):
    form = browser.open(base + page).read().decode()
    fields["csrf"] = re.search('name="csrf" value="([^"]*)"', form)[1]
    headers = {"Origin": base, "Sec-Fetch-Site": "same-origin"}
    return browser.open(urllib.request.Request(base + to, urllib.parse.urlencode(fields).encode(), headers)).read().decode()
submit("/sign-in", "/sign-in", username="engineer", password=password)
submit("/sign-in/code", "/sign-in/code", code=code())
# A code is good once: the next one of the neighbouring half minute.
made = submit("/account", "/account/tokens", name="demo", role="system_engineer", days="1", code=code(1))
print(re.search('<code class="secret">([^<]*)<', made)[1])
PYTHON
  [ -s "$demo/token" ] || fail 'the engineer signs in'
  api() { curl -fsS -H "Authorization: Bearer $(cat "$demo/token")" -H 'Content-Type: application/json' "$@"; }
  appliance=$("${collector[@]}" appliance list --json | field 0.appliance_id)
  offer() { # FILE MAIL: from the ticket
    wait_for 40 "the collector has verified $1" sh -c "curl -fsS -H 'Authorization: Bearer $(cat "$demo/token")' '$web/api/v1/releases/$1' | grep -q '\"state\": *\"good\"'"
    api "$web/api/v1/releases/$1/offers" -d "{\"appliances\": [\"$appliance\"], \"ticket\": \"$3\", \"mail\": $2}" >"$demo/offer.json"
    grep -q '"offer_id": *"' "$demo/offer.json" || { cat "$demo/offer.json" >&2; fail "$1 is offered"; }
  }
  on_the_box() { "${agent[@]}" --helper-config "$demo/box/helper.toml" "$@"; }
  waits_on_box() { on_the_box "$1" list --json | grep -q "\"step\": *\"$2\""; }
  build() { # KIND NAME TREE: two of three sign what stands on standard input
    cat >"$vendor/$2.toml"
    {
      "$release" build --kind "$1" "$vendor/$2.toml" ${3:+--dir "$3"} --repository "$demo/repository" --out "$vendor/$2.bundle"
      sign_and_publish "$vendor/$2.bundle"
    } >>"$demo/logs/commands.log" 2>&1 || { tail "$demo/logs/commands.log" >&2; fail "$2 is signed and published"; }
  }
  patch_toml() { # VERSION FROM ZH EN
    printf 'product = "acme-gateway"\nversion = "%s"\ntitle = { zh = "%s", en = "%s" }\nnotes = { zh = "安装时收单服务停顿数秒。", en = "Card payments pause for a few seconds." }\n' "$1" "$3" "$4"
    printf '[patch]\nas = "tree"\nfrom = "%s"\nservices = ["payments"]\ndata_change = "none"\nhealth = { consecutive_ok = 3, deadline_s = %s }\n' "$2" "$5"
  }

  chapter 5 'From the ticket: an action, signed offline / 从工单执行已签名的动作'
  tell 'two of the three signers sign it, each with a key of their own; the collector holds none of these keys'
  build action restart-payments '' <<'TOML'
product = "acme-gateway"
name = "restart-payments"
version = "1.0.0"
title = { zh = "重启收单服务", en = "Restarts card payments" }

[action]
restart_service = "payments"
timeout_s = 30
min_interval_s = 3600
TOML
  offer acme-gateway-restart-payments.mpatch false "$ticket"
  tell 'offered from the ticket; the box fetches it, checks the signatures itself, and waits for the consent of its administrator'
  wait_for 40 'the box has verified the action' waits_on_box action awaiting_consent
  on_the_box action list
  action=$(on_the_box action list --json | field 0.sha256)
  on_the_box action run "$action" >"$demo/action.txt" 2>&1 || true
  sleep 1
  if curl -fsS "http://127.0.0.1:$shop_port/" >/dev/null 2>&1; then fail 'version 2.0.0 should crash again'; fi
  good 'restarted, with the consent of the administrator on the box; it crashes again at once: the fault is in version 2.0.0'

  chapter 6 'A repair: signed by two of three, approved by the link in the mail with the code of the box / 补丁：两人签名，邮件链接批准'
  patch_toml 2.1.0 '>=2.0.0, <2.1.0' '修复账簿超过一百行时收单服务崩溃' 'Card payments no longer crash on a book of more than 100 lines' 60 | build patch repair "$vendor/tree-2.1.0"
  offer acme-gateway-2.1.0.mpatch true "$ticket"
  link() { grep -rhoE "$web/p/[A-Za-z0-9_-]+" <(/usr/bin/python3 -c '
import email, email.policy, glob, sys
for path in glob.glob(sys.argv[1] + "/*"):
    with open(path, "rb") as file:
        mail = email.message_from_binary_file(file, policy=email.policy.default)
    print(mail.get_body(("plain",)).get_content())' "$demo/mail/box/new") | sort -u | head -n 1 | grep .; }
  wait_for 40 'the mail with the link arrives' link
  good 'the customer has a mail with a link; opening it changes nothing'
  tell "the link: ${bold}$(link)$off (for as long as the demo runs; what it shows now and afterwards)"
  wait_for 60 'the box has fetched and verified the patch' waits_on_box patch awaiting_consent
  on_the_box patch list
  code=$(on_the_box patch list --json | field 0.code)
  offer_id=$(field 0.offer_id <"$demo/offer.json")
  curl -fsS -o "$demo/approved.html" -H "Origin: $web" --data "offer=$offer_id&code=$code" -L "$(link)/approve" || fail 'the approval is taken'
  good 'approved at the page of the link, with the six digits that only the box shows'
  version_is() { [ "$(on_the_box patch status --json | field installed.version)" = "$1" ]; }
  tell 'the box judges the code, stops the service, swaps the version, starts it, and asks the service three times before it believes it'
  wait_for 90 'version 2.1.0 is installed and believed' version_is 2.1.0
  wait_for 30 'the service answers' curl -fsS "http://127.0.0.1:$shop_port/"
  good "${green}${bold}version 2.1.0 runs, the business service answers$off"
  recovered() { "${collector[@]}" ticket list --json | grep -q '"state": *"recovered"'; }
  tell 'the ticket recovers once the agent, which asks every 10 s, has seen the service well'
  wait_for 90 'the ticket recovers' recovered
  "${collector[@]}" ticket show "$ticket"

  chapter 7 'A bad patch goes back by itself / 坏补丁自动回退'
  patch_toml 2.2.0 '>=2.1.0, <2.2.0' '新版本（演示用的坏补丁）' 'A new version (bad on purpose)' 8 | build patch bad "$vendor/tree-2.2.0"
  offer acme-gateway-2.2.0.mpatch false ''
  wait_for 60 'the box has verified it' waits_on_box patch awaiting_consent
  bad=$(on_the_box patch list --json | field 0.sha256)
  tell 'the administrator installs it; its service answers with errors, and after 8 s without a good answer the box goes back'
  on_the_box patch apply "$bad" --now || true
  wait_for 30 'the old version answers again' curl -fsS "http://127.0.0.1:$shop_port/"
  version_is 2.1.0 || fail 'version 2.1.0 runs again'
  second_ticket() { "${collector[@]}" ticket list --json | grep -q patch_rolled_back; }
  wait_for 60 'its ticket opens' second_ticket
  good "${bold}version 2.2.0 answered with errors: back on 2.1.0 by itself, one ticket, never offered to this box again$off"
  on_the_box patch history
}
if [ "$(id -u)" = 0 ]; then patches
else tell 'Installing needs root: run `make demo` as root to see the action, the repair and the rollback.'; fi

chapter ★ "The console / 控制台   $dim(story told in $((SECONDS - began)) s)$off"
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
    s) "$demo/box/service" start; tell 'the service was started: what waits for it will say recovered in a few seconds' ;;
    q) break ;;
  esac
done
