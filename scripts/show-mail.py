"""Shows the first mail of a Maildir tree for an address, decoded: show-mail.py FOLDER ADDRESS. Exit code 1 when there is none."""

import email
import email.policy
import pathlib
import sys

folder, address = sys.argv[1:]
files = sorted(pathlib.Path(folder).rglob("new/*"))
for file in files:
    mail = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    if address in str(mail["To"]):
        for name in ("From", "To", "Subject", "Message-ID"):
            print(f"{name}: {mail[name]}")
        print()
        print(mail.get_body(("plain",)).get_content().rstrip())
        sys.exit(0)
sys.exit(1)
