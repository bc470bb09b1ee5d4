"""The present sign-in code of a base32 TOTP secret (RFC 6238, SHA-1, 30 s, 6 digits): totp.py SECRET."""

import base64
import hmac
import sys
import time

secret = sys.argv[1].upper()
key = base64.b32decode(secret + "=" * (-len(secret) % 8))
digest = hmac.new(key, int(time.time() // 30).to_bytes(8, "big"), "sha1").digest()
at = digest[-1] & 15
print(f"{(int.from_bytes(digest[at:at + 4], 'big') & 0x7FFFFFFF) % 1000000:06d}")
