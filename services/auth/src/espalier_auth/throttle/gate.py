"""The one way to check a password: counted, in a pool, and the same for whoever does not get through."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from sqlalchemy.orm import Session

from espalier_auth import repository
from espalier_auth.errors import InvalidCredentials, TooManyPasswordTries
from espalier_auth.models import KnownPassword
from espalier_auth.passwords import Passwords
from espalier_auth.throttle.devices import DeviceTokens
from espalier_auth.throttle.service import (
    Busy,
    NotNow,
    Place,
    Refusal,
    Throttle,
    Ticket,
    account_at_address,
    account_bucket,
    address_bucket,
    device_bucket,
)
from espalier_common.audit.recording import note_actor, note_aside, note_reason
from espalier_common.db import Database, utc_now

# Of one account at a time in this process; the rest waits here instead of asking the database again and again.
AT_A_TIME = 4
BUSY_SECONDS = 0.1
LONGEST_BUSY_SECONDS = 15.0
ADDRESS_IS_KNOWN_FOR = timedelta(days=90)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Passed:
    """A right password. `ticket` goes to `Throttle.passed` in the transaction that follows from it."""

    user: KnownPassword
    ticket: Ticket
    device: str = ""


@dataclass(frozen=True)
class _Try:
    """Whose password it should be, and where it is tried."""

    user: KnownPassword | None
    place: Place
    device: str = ""


class PasswordGate:
    """Checks passwords for sign-in and for whatever else asks for one."""

    def __init__(
        self, database: Database, *, passwords: Passwords, throttle: Throttle, device_tokens: DeviceTokens
    ) -> None:
        self.throttle = throttle
        self.device_tokens = device_tokens
        self._database = database
        self._passwords = passwords
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def sign_in(
        self, *, username: str, password: str, address: str, device_token: str, then: Callable[[Passed], _Result]
    ) -> _Result:
        """What `then` makes of the user with this password, in the thread of the check.

        Raises InvalidCredentials, TooManyPasswordTries for an address.
        """

        def find(session: Session) -> _Try:
            user = repository.find_password(session, username, address=address, since=utc_now() - ADDRESS_IS_KNOWN_FOR)
            account, at = account_bucket(username), address_bucket(address)
            device = self.device_tokens.read(device_token, user_id=user.id) if user and device_token else ""
            if device:
                return _Try(user, Place(account, at, device_bucket(device), vouched=True), device)
            known = account_at_address(username, address) if user and user.from_here else ""
            return _Try(user, Place(account, at, known))

        turn = f"{username.lower()} {device_token}"
        found = await self._check(find, turn=turn, password=password, then=then)
        if isinstance(found, Refusal) and found.by_address:
            raise TooManyPasswordTries(found.seconds)
        if found is None or isinstance(found, Refusal):
            raise InvalidCredentials
        return found

    async def confirm(self, user_id: str, *, session_id: str, password: str) -> KnownPassword | None:
        """The signed-in user, if it is his password; None if not. Raises TooManyPasswordTries."""

        def find(session: Session) -> _Try:
            user = repository.find_password_of(session, user_id)
            account = account_bucket(user.username) if user else ""
            return _Try(user, Place(account, known=device_bucket(session_id), vouched=True))

        found = await self._check(find, turn=f"session {session_id}", password=password, then=self.settle)
        if isinstance(found, Refusal):
            raise TooManyPasswordTries(found.seconds)
        return found

    async def _check(
        self, find: Callable[[Session], _Try], *, turn: str, password: str, then: Callable[[Passed], _Result]
    ) -> _Result | Refusal | None:
        """What `then` gives; None for a wrong password."""
        mine = self._turns.get(turn) or self._turns.setdefault(turn, asyncio.Semaphore(AT_A_TIME))
        async with mine:
            deadline = asyncio.get_running_loop().time() + LONGEST_BUSY_SECONDS
            while True:
                found = await self._passwords.run(partial(self._try, find, password, then))
                if not isinstance(found, Busy):
                    return found
                if asyncio.get_running_loop().time() > deadline:
                    return Refusal(by_address=False, seconds=BUSY_SECONDS)
                pause = BUSY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311  (spreads the askers, no secret)
                await asyncio.sleep(pause)

    def _try(
        self, find: Callable[[Session], _Try], password: str, then: Callable[[Passed], _Result]
    ) -> _Result | Refusal | Busy | None:
        """All of one check in one thread. Between counting and what follows it holds no database connection."""
        try:
            with self._database.transaction() as session:
                note_aside(session)
                tried = find(session)
                if tried.user is not None:
                    # A name that is nobody's may be a password in the wrong field: it is told nowhere.
                    note_actor("", tried.user.username)
                ticket = self.throttle.take(session, tried.place)
        except NotNow as refused:
            return refused.found
        # Whoever is shut out costs and waits as much as the others: the same check, and the same writing after it.
        user, right = (None if ticket.shut_out else tried.user), False
        try:
            right = self._passwords.matches(user.password_hash if user else None, password)
            right = right and user is not None and not user.disabled
        finally:
            if not right:
                self._fail(ticket)
        if ticket.shut_out:
            return ticket.shut_out
        return then(Passed(user, ticket, tried.device)) if right and user else None

    def settle(self, passed: Passed) -> KnownPassword:
        """Ends the count of a right password from which nothing follows that has a transaction of its own."""
        with self._database.transaction() as session:
            self.throttle.passed(session, passed.ticket)
        return passed.user

    def _fail(self, ticket: Ticket) -> None:
        if not ticket.shut_out:
            # Of password tries none is left out of the audit log: they are few, for they are throttled.
            note_reason(InvalidCredentials.reason)
        with self._database.transaction() as session:
            note_aside(session)
            if ticket.shut_out:
                self.throttle.withdraw(session, ticket)
            else:
                self.throttle.failed(session, ticket)
