"""The authenticator app of a test, and a person who types what it shows: the codes of RFC 6238 of a secret.

Made anew beside what auth has, so that a mistake there is not made here too.
"""

import base64
import hmac
import struct
import time
from collections.abc import Iterator

STEP = 30  # seconds
# A code that ran out on its way so often was not refused for its age.
_TRIES = 5


def codes_of(secret: str) -> Iterator[str]:
    """The code that the app shows now and, to who asks for another since it was refused, the one that it shows then.

    A code is good for half a minute, of which nobody knows how much is left when it arrives. So whoever gives one goes
    on until it is taken, as a person does::

        for code in codes_of(secret):
            if api.post(…, {"code": code}).is_success:
                break

    Ends with AssertionError when a code is refused that had not run out.
    """
    for _ in range(_TRIES):
        step = _step_now()
        yield _code(secret, step)
        if _step_now() == step:
            raise AssertionError("a code was refused that had not run out")
    raise AssertionError(f"{_TRIES} codes were refused, each after it had run out")


def wrong_code_of(secret: str) -> str:
    """Six digits that the app shows neither now nor in the minutes around."""
    now = _step_now()
    shown = {_code(secret, step) for step in range(now - 12, now + 6)}
    return next(code for code in (f"{number:06}" for number in range(20)) if code not in shown)


def _step_now() -> int:
    return int(time.time() // STEP)


def _code(secret: str, step: int) -> str:
    mac = hmac.digest(base64.b32decode(secret), struct.pack(">Q", step), "sha1")
    offset = mac[-1] & 0x0F
    (number,) = struct.unpack(">I", mac[offset : offset + 4])
    return f"{(number & 0x7FFF_FFFF) % 10**6:06}"
