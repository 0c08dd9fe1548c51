"""The authenticator app of a test: the codes of RFC 6238 that belong to a secret."""

import base64
import hmac
import struct
import time

STEP = 30  # seconds


def code_of(secret: str, *, later: int = 0) -> str:
    """The code that the app shows now, or so many steps later; the platform takes it for half a minute at least."""
    step = int(time.time() // STEP) + later
    mac = hmac.digest(base64.b32decode(secret), struct.pack(">Q", step), "sha1")
    offset = mac[-1] & 0x0F
    (number,) = struct.unpack(">I", mac[offset : offset + 4])
    return f"{(number & 0x7FFF_FFFF) % 10**6:06}"


def wrong_code_of(secret: str) -> str:
    """Six digits that the app shows neither now nor in the minutes around."""
    shown = {code_of(secret, later=step) for step in range(-5, 6)}
    return next(code for code in (f"{number:06}" for number in range(12)) if code not in shown)
