#!/usr/bin/env bash
# A private postfix in the foreground: everything it needs and makes lies in FOLDER, nothing in /etc.
# Usage: scripts/mail-server.sh FOLDER PORT      (root: postfix changes users; it ends with SIGTERM)
# Listens on 127.0.0.1:PORT, offers STARTTLS (trust FOLDER/ca.pem), takes every mail for test.invalid into the Maildir
# FOLDER/vmail/all and relays nothing. Its log is FOLDER/logs/mail.log.
set -euo pipefail

[ $# = 2 ] || { echo 'usage: scripts/mail-server.sh FOLDER PORT' >&2; exit 64; }
[ "$(id -u)" = 0 ] || { echo 'the private mail server needs root: postfix changes users' >&2; exit 77; }
[ -x /usr/sbin/postfix ] || { echo 'postfix is not installed: scripts/setup.sh mail' >&2; exit 69; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
port=$2
nobody=65534

mkdir -p "$folder"/etc/{postfix-files.d,dynamicmaps.cf.d} "$folder"/{spool,data,vmail,logs}
chmod 755 "$folder"
cp /etc/postfix/postfix-files "$folder/etc/"
: >"$folder/etc/dynamicmaps.cf"
chown postfix "$folder/data"
chown $nobody:$nobody "$folder/vmail"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
if [ ! -f "$folder/ca.pem" ]; then
  (
    cd "$folder"
    key ca.key
    openssl req -x509 -new -key ca.key -days 3650 -subj '/CN=Private mail CA' -out ca.pem
    key key.pem
    openssl req -new -key key.pem -subj '/CN=127.0.0.1' -out cert.csr
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' >cert.ext
    openssl x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile cert.ext -out cert.pem
  ) 2>"$folder/logs/openssl.log" || { cat "$folder/logs/openssl.log" >&2; exit 70; }
fi

cat >"$folder/etc/main.cf" <<CONF
compatibility_level=3.6
queue_directory=$folder/spool
data_directory=$folder/data
command_directory=/usr/sbin
daemon_directory=/usr/lib/postfix/sbin
mail_owner=postfix
setgid_group=postdrop
myhostname=mx.test.invalid
mydestination=
inet_interfaces=127.0.0.1
inet_protocols=ipv4
mynetworks=127.0.0.0/8
virtual_mailbox_domains=test.invalid
virtual_mailbox_base=$folder/vmail
virtual_mailbox_maps=static:all/
virtual_uid_maps=static:$nobody
virtual_gid_maps=static:$nobody
virtual_minimum_uid=100
alias_maps=
alias_database=
local_recipient_maps=
maillog_file=$folder/logs/mail.log
maillog_file_prefixes=$folder/logs
default_transport=error:no outbound
relay_transport=error:no outbound
smtpd_relay_restrictions=permit_mynetworks,reject_unauth_destination
smtpd_tls_security_level=may
smtpd_tls_cert_file=$folder/cert.pem
smtpd_tls_key_file=$folder/key.pem
CONF
cat >"$folder/etc/master.cf" <<CONF
127.0.0.1:$port inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
CONF
cd /
/usr/sbin/postfix -c "$folder/etc" check
exec /usr/lib/postfix/sbin/master -c "$folder/etc" -d
