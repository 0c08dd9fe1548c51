"""Codes of an authenticator (TOTP, RFC 6238, with the parameters that every app knows) and recovery codes. Pure.

The algorithm is ten lines over `hmac`; a library would bring the same ten lines.
"""

import base64
import hashlib
import hmac
import secrets
import struct
from urllib.parse import quote, urlencode

DIGITS = 6
STEP_SECONDS = 30
# Of a code that was right so many steps before, it is said that it ran out: it is worth nothing any more.
STEPS_TOLD = 10
SECRET_BYTES = 20  # as many as RFC 4226 recommends
RECOVERY_CODES = 10
# 120 random bits: so many need no salt and no slow hash (ASVS 6.5.2).
_RECOVERY_BYTES = 15
_GROUP = 4


def new_secret() -> bytes:
    """The secret that the platform shares with one authenticator."""
    return secrets.token_bytes(SECRET_BYTES)


def to_base32(secret: bytes) -> str:
    """A secret as people type it into an app."""
    return base64.b32encode(secret).decode().rstrip("=")


def otpauth_uri(secret: bytes, *, username: str, issuer: str) -> str:
    """The address that apps read from a QR code."""
    parameters = {
        "secret": to_base32(secret),
        "issuer": issuer,
        "algorithm": "SHA1",
        "digits": DIGITS,
        "period": STEP_SECONDS,
    }
    return f"otpauth://totp/{quote(issuer)}:{quote(username)}?{urlencode(parameters, quote_via=quote)}"


def code_of(secret: bytes, step: int, *, digits: int = DIGITS) -> str:
    """The code of one half minute, counted from 1970 (RFC 4226, 5.3)."""
    mac = hmac.digest(secret, struct.pack(">Q", step), "sha1")
    offset = mac[-1] & 0x0F
    number = struct.unpack(">I", mac[offset : offset + 4])[0] & 0x7FFF_FFFF
    return str(number % 10**digits).zfill(digits)


def step_at(now: float) -> int:
    """The half minute of a Unix time."""
    return int(now // STEP_SECONDS)


def step_of(secret: bytes, code: str, *, now: float) -> int | None:
    """The half minute of the Unix time `now`, if this is its code: no other is taken (ASVS 6.5.5)."""
    step = step_at(now)
    return step if _is_code_of(secret, step, code) else None


def has_run_out(secret: bytes, code: str, *, now: float) -> bool:
    """Whether it was the code of one of the last five minutes. Of one that is still to come nobody is told."""
    step = step_at(now)
    return any(_is_code_of(secret, step - back, code) for back in range(1, STEPS_TOLD + 1))


def _is_code_of(secret: bytes, step: int, code: str) -> bool:
    return hmac.compare_digest(code_of(secret, step).encode(), code.encode())


def normalized(typed: str) -> str:
    """A code as it was meant: without the blanks and dashes by which people group it."""
    return "".join(letter for letter in typed if not letter.isspace() and letter != "-").upper()


def is_of_authenticator(code: str) -> bool:
    """Whether a normalized code has the form of an authenticator's; any other is taken for a recovery code."""
    return len(code) == DIGITS and code.isascii() and code.isdigit()


def new_recovery_codes() -> list[str]:
    """Ten codes as they are shown, such as "k3t7-qwzb-…"."""
    return [_grouped(to_base32(secrets.token_bytes(_RECOVERY_BYTES)).lower()) for _ in range(RECOVERY_CODES)]


def hash_of(code: str) -> bytes:
    """How a recovery code is stored."""
    return hashlib.sha256(normalized(code).encode()).digest()


def _grouped(code: str) -> str:
    return "-".join(code[at : at + _GROUP] for at in range(0, len(code), _GROUP))
