#!/usr/bin/env bash
# Installs what a part of the work needs and the machine lacks: Debian packages, python-tuf (PyPI) into target/tuf-venv, s3s-fs
# (a crate: a small S3 server, built once in some two minutes) into target/tools.
# Usage: scripts/setup.sh PART...     parts: build static database browser monitoring mail demo peers patch-peers disks misc tuf s3, or all
# A fast no-op when everything is there. Says what it installs; starts and enables no service that it installs.
# Exit codes: 0 all there, 64 unknown part, 69 something is missing and can't be installed from here.
set -euo pipefail

say() { printf 'set-up: %s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }
has_postgres() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
has_chinese_font() { has fc-list && [ -n "$(fc-list :lang=zh 2>/dev/null | head -n 1)" ]; }

# An outside reader of the signed repository, in a folder of its own; the version is part of the tests.
tuf=no
python_tuf() {
  local venv
  venv=$(cd "$(dirname "$0")/.." && pwd)/target/tuf-venv
  [ "$tuf" = yes ] || return 0
  "$venv/bin/python" -c 'import tuf, sys; sys.exit(tuf.__version__ != "7.0.1")' 2>/dev/null && return 0
  say 'installing python-tuf 7.0.1 into target/tuf-venv (pip)'
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q tuf==7.0.1 'securesystemslib[crypto]'; } >&2; then
    say 'python-tuf could not be installed' >&2
    exit 69
  fi
}

# A store that the tests read a bucket of; the version is part of the tests.
s3=no
s3_server() {
  local tools
  tools=$(cd "$(dirname "$0")/.." && pwd)/target/tools
  [ "$s3" = yes ] || return 0
  [ "$("$tools/bin/s3s-fs" --version 2>/dev/null)" != 's3s-fs 0.14.1' ] || return 0
  say 'building s3s-fs 0.14.1 into target/tools (cargo install)'
  if ! cargo install --quiet --locked --debug --root "$tools" --target-dir "$tools/build" --features binary --version 0.14.1 s3s-fs >&2; then
    say 's3s-fs could not be built' >&2
    exit 69
  fi
  rm -rf "$tools/build"
}

missing=()
want() { missing+=("$@"); }

part() {
  case "$1" in
    build)      has cc || want gcc libc6-dev
                has git || want git ;;
    static)     has musl-gcc || want musl-tools ;;
    database)   has_postgres || want postgresql ;;
    browser)    has chromium || want chromium
                has chromedriver || want chromium-driver
                has_chinese_font || want fontconfig fonts-wqy-microhei ;;
    monitoring) [ -x /usr/lib/nagios/plugins/check_dummy ] || want monitoring-plugins-basic ;;
    mail)       [ -x /usr/sbin/postfix ] || want postfix
                has openssl || want openssl ;;
    demo)       [ -x /usr/bin/python3 ] || want python3
                /usr/bin/python3 -c "import aiosmtpd" 2>/dev/null || want python3-aiosmtpd
                has openssl || want openssl
                has curl || want curl ca-certificates ;;
    peers)      [ -x /usr/sbin/collectd ] || want collectd-core
                has prometheus-alertmanager || want prometheus-alertmanager
                has monit || want monit
                has prometheus-node-exporter || want prometheus-node-exporter
                [ -x /usr/sbin/zabbix_agentd ] || want zabbix-agent
                has mkfs.ext4 || want e2fsprogs ;;
    patch-peers) has rauc || want rauc squashfs-tools
                has swupdate || want swupdate
                has cpio || want cpio
                has strace || want strace
                has openssl || want openssl
                [ -x /usr/bin/python3 ] || want python3 ;;
    misc)       has strace || want strace
                has systemd-analyze || want systemd
                has openssl || want openssl
                has curl || want curl ca-certificates ;;
    disks)      { has mkfs.ext4 || [ -x /sbin/mkfs.ext4 ]; } || want e2fsprogs
                { has mkfs.xfs || [ -x /sbin/mkfs.xfs ]; } || want xfsprogs
                has strace || want strace
                has losetup || want mount ;;
    tuf)        tuf=yes
                has python3 && python3 -c 'import ensurepip' 2>/dev/null || want python3 python3-venv ;;
    s3)         s3=yes
                has cc || want gcc libc6-dev ;;
    all)        for p in build database browser monitoring mail demo misc disks tuf s3; do part "$p"; done ;;
    *)          say "unknown part \"$1\": expected build, static, database, browser, monitoring, mail, demo, peers, patch-peers, misc, disks, tuf, s3 or all" >&2; exit 64 ;;
  esac
}

policy=/usr/sbin/policy-rc.d
policy_mark='mainstay set-up: no service starts while packages are installed'
forbid_starting() {
  # One that an interrupted run left behind goes; one of the machine's own stays and rules.
  if [ -f "$policy" ] && grep -q "$policy_mark" "$policy"; then rm -f "$policy"; fi
  [ -e "$policy" ] && return 0
  trap 'rm -f "$policy"' EXIT
  trap 'exit 130' INT TERM
  printf '#!/bin/sh\n# %s\nexit 101\n' "$policy_mark" >"$policy"
  chmod 755 "$policy"
}

packages() { dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' 2>/dev/null | awk '$1 == "ii" { print $2 }' | sort -u; }

disable_services_of() {
  local package file
  for package in "$@"; do
    dpkg -L "$package" 2>/dev/null | while read -r file; do
      case "$file" in
        /lib/systemd/system/*@.*|/usr/lib/systemd/system/*@.*) ;;
        /lib/systemd/system/*.service|/lib/systemd/system/*.timer|/usr/lib/systemd/system/*.service|/usr/lib/systemd/system/*.timer)
          has systemctl && systemctl disable --no-reload "${file##*/}" >/dev/null 2>&1 || true ;;
        /etc/init.d/*) has update-rc.d && update-rc.d "${file##*/}" disable >/dev/null 2>&1 || true ;;
      esac
    done
  done
}

[ $# -gt 0 ] || set -- all
for name in "$@"; do part "$name"; done
[ ${#missing[@]} -gt 0 ] || { python_tuf; s3_server; exit 0; }

if ! has apt-get; then
  say "missing: ${missing[*]} (names of Debian packages); there is no apt-get here, please install their like" >&2
  exit 69
fi
if [ "$(id -u)" != 0 ]; then
  say "missing: ${missing[*]}; as root: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 69
fi

say "installing ${missing[*]} (apt-get, no service is started or enabled)"
export DEBIAN_FRONTEND=noninteractive
forbid_starting
before=$(packages)
case " ${missing[*]} " in
  *' postfix '*) has debconf-set-selections && echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections ;;
esac
log=$(cd "$(dirname "$0")/.." && mkdir -p target && pwd)/target/setup.log
apt-get -qq update >"$log" 2>&1 || say 'apt-get update failed; trying with the lists that are there'
if ! apt-get -qq install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 </dev/null; then
  say "apt-get could not install: ${missing[*]}; the end of $log:" >&2
  tail -n 15 "$log" >&2
  exit 69
fi
mapfile -t added < <(comm -13 <(printf '%s\n' "$before") <(packages))
disable_services_of "${added[@]}"
say "done, ${#added[@]} packages with what they need"
python_tuf
s3_server
