"""The one way to check a password, or a code: counted, in a pool, and the same for whoever does not get through."""

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
from espalier_auth.second_factor.errors import WRONG, WrongCode
from espalier_auth.second_factor.repository import count_wrong
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
from espalier_common.errors import EspalierError

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
        found = await self._check(find, turn=turn, judge=partial(self._judge, password=password, then=then))
        if isinstance(found, Refusal) and found.by_address:
            raise TooManyPasswordTries(found.seconds)
        if found is None or isinstance(found, Refusal):
            raise InvalidCredentials
        return found

    async def confirm(self, user_id: str, *, session_id: str, password: str) -> KnownPassword | None:
        """The signed-in user, if it is his password; None if not. Raises TooManyPasswordTries."""
        find, turn = partial(_find_signed_in, user_id=user_id, session_id=session_id), f"session {session_id}"
        found = await self._check(find, turn=turn, judge=partial(self._judge, password=password, then=self.settle))
        if isinstance(found, Refusal):
            raise TooManyPasswordTries(found.seconds)
        return found

    async def take_code(self, user_id: str, *, session_id: str, then: Callable[[Session], _Result]) -> _Result:
        """What `then` makes of a code of the signed-in user, in one transaction. A WrongCode counts as a failed try.

        Raises TooManyPasswordTries, and what `then` raises.
        """
        find, turn = partial(_find_signed_in, user_id=user_id, session_id=session_id), f"session {session_id}"
        found = await self._check(find, turn=turn, judge=partial(self._judge_code, then=then))
        if found is None or isinstance(found, Refusal):
            raise TooManyPasswordTries(found.seconds if found else BUSY_SECONDS)
        return found

    async def _check(
        self,
        find: Callable[[Session], _Try],
        *,
        turn: str,
        judge: Callable[[_Try, Ticket], _Result | Refusal | None],
    ) -> _Result | Refusal | None:
        """What `judge` gives: None for a wrong password."""
        mine = self._turns.get(turn) or self._turns.setdefault(turn, asyncio.Semaphore(AT_A_TIME))
        async with mine:
            deadline = asyncio.get_running_loop().time() + LONGEST_BUSY_SECONDS
            while True:
                found = await self._passwords.run(partial(self._try, find, judge))
                if not isinstance(found, Busy):
                    return found
                if asyncio.get_running_loop().time() > deadline:
                    return Refusal(by_address=False, seconds=BUSY_SECONDS)
                pause = BUSY_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311  (spreads the askers, no secret)
                await asyncio.sleep(pause)

    def _try(
        self, find: Callable[[Session], _Try], judge: Callable[[_Try, Ticket], _Result | Refusal | None]
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
        return judge(tried, ticket)

    def _judge(
        self, tried: _Try, ticket: Ticket, *, password: str, then: Callable[[Passed], _Result]
    ) -> _Result | Refusal | None:
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

    def _judge_code(
        self, tried: _Try, ticket: Ticket, *, then: Callable[[Session], _Result]
    ) -> _Result | Refusal | None:
        if ticket.shut_out or tried.user is None:
            self._withdraw(ticket)
            return ticket.shut_out
        return self.follow(Passed(tried.user, ticket), then)

    def follow(self, passed: Passed, then: Callable[[Session], _Result]) -> _Result:
        """What `then` makes, in one transaction, of a right password and of a code that may have to come with it.

        A WrongCode counts as a wrong password does; whatever else it raises counts for nothing: a right password alone
        must not clear what somebody guessed of the codes.
        """
        try:
            with self._database.transaction() as session:
                found = then(session)
                # After the user, as whoever resets his password takes them too.
                self.throttle.passed(session, passed.ticket)
                return found
        except WrongCode:
            note_reason(WRONG)
            with self._database.transaction() as session:
                note_aside(session)
                count_wrong(session, passed.user.id)
                self.throttle.failed(session, passed.ticket)
            raise
        except EspalierError:
            self._withdraw(passed.ticket)
            raise

    def settle(self, passed: Passed) -> KnownPassword:
        """Ends the count of a right password from which nothing follows that has a transaction of its own."""
        with self._database.transaction() as session:
            self.throttle.passed(session, passed.ticket)
        return passed.user

    def _fail(self, ticket: Ticket) -> None:
        if ticket.shut_out:
            self._withdraw(ticket)
            return
        # Of password tries none is left out of the audit log: they are few, for they are throttled.
        note_reason(InvalidCredentials.reason)
        with self._database.transaction() as session:
            note_aside(session)
            self.throttle.failed(session, ticket)

    def _withdraw(self, ticket: Ticket) -> None:
        with self._database.transaction() as session:
            note_aside(session)
            self.throttle.withdraw(session, ticket)


def _find_signed_in(session: Session, *, user_id: str, session_id: str) -> _Try:
    user = repository.find_password_of(session, user_id)
    account = account_bucket(user.username) if user else ""
    return _Try(user, Place(account, known=device_bucket(session_id), vouched=True))
