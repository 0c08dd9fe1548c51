"""The one way to check a password: counted, in a pool, and the same for whoever does not get through."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from weakref import WeakValueDictionary

from sqlalchemy.orm import Session

from espalier_auth.errors import InvalidCredentials, TooManyPasswordTries
from espalier_auth.models import User
from espalier_auth.passwords import Passwords
from espalier_auth.sessions.repository import has_signed_in_from
from espalier_auth.throttle.devices import DeviceTokens
from espalier_auth.throttle.service import (
    Busy,
    Place,
    Refusal,
    Throttle,
    Ticket,
    account_bucket,
    address_bucket,
    device_bucket,
)
from espalier_common.db import Database, utc_now

# Of one account at a time in this process; the rest waits here instead of asking the database again and again.
AT_A_TIME = 4
BUSY_SECONDS = 0.1
LONGEST_BUSY_SECONDS = 15.0
ADDRESS_IS_KNOWN_FOR = timedelta(days=90)

FindUser = Callable[[Session], User | None]


@dataclass(frozen=True)
class Passed:
    """A right password. `ticket` goes to `Throttle.passed` in the transaction that follows from it."""

    user: User
    ticket: Ticket
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
        self, find_user: FindUser, *, username: str, password: str, address: str, device_token: str
    ) -> Passed:
        """The user with this password. Raises InvalidCredentials, TooManyPasswordTries for an address."""

        def find(session: Session) -> tuple[User | None, str, Place]:
            user = find_user(session)
            device = self.device_tokens.read(device_token, user_id=user.id) if user and device_token else ""
            if device:
                return user, device, Place(device_bucket(device))
            # Nobody is known by an address that is not: sessions from before it was kept have none either.
            lately = utc_now() - ADDRESS_IS_KNOWN_FOR
            known = has_signed_in_from(session, username, address, since=lately) and bool(address)
            account = account_bucket(username, address=address if known else "")
            return user, "", Place(account, address_bucket(address))

        passed = await self._check(find, turn=f"{username.lower()} {device_token}", password=password)
        if isinstance(passed, Refusal) and passed.by_address:
            raise TooManyPasswordTries(passed.seconds)
        if not isinstance(passed, Passed):
            raise InvalidCredentials
        return passed

    async def confirm(self, find_user: FindUser, *, session_id: str, password: str) -> Passed | None:
        """The signed-in user, if it is his password; None if not. Raises TooManyPasswordTries."""
        place = Place(device_bucket(session_id))
        passed = await self._check(
            lambda session: (find_user(session), "", place), turn=f"session {session_id}", password=password
        )
        if isinstance(passed, Refusal):
            raise TooManyPasswordTries(passed.seconds)
        if passed is not None:
            await asyncio.to_thread(self._pass, passed.ticket)
        return passed

    async def _check(
        self, find: Callable[[Session], tuple[User | None, str, Place]], *, turn: str, password: str
    ) -> Passed | Refusal | None:
        mine = self._turns.get(turn) or self._turns.setdefault(turn, asyncio.Semaphore(AT_A_TIME))
        async with mine:
            user, device, ticket = await self._take(find)
            if isinstance(ticket, Refusal):
                if not ticket.by_address:
                    # Whoever is shut out waits as long as for a check, and costs as much.
                    await self._passwords.verify(None, password)
                return ticket
            right = False
            try:
                right = await self._passwords.verify(user.password_hash if user else None, password)
                right = right and user is not None and not user.disabled
            finally:
                if not right:
                    await asyncio.to_thread(self._fail, ticket)
            return Passed(user, ticket, device) if right and user else None

    async def _take(
        self, find: Callable[[Session], tuple[User | None, str, Place]]
    ) -> tuple[User | None, str, Ticket | Refusal]:
        def take() -> tuple[User | None, str, Ticket | Refusal | Busy]:
            with self._database.transaction() as session:
                user, device, place = find(session)
                return user, device, self.throttle.take(session, place)

        deadline = asyncio.get_running_loop().time() + LONGEST_BUSY_SECONDS
        while True:
            user, device, found = await asyncio.to_thread(take)
            if not isinstance(found, Busy):
                return user, device, found
            if asyncio.get_running_loop().time() > deadline:
                return user, device, Refusal(by_address=False, seconds=BUSY_SECONDS)
            await asyncio.sleep(BUSY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  (spreads the askers, no secret)

    def _pass(self, ticket: Ticket) -> None:
        with self._database.transaction() as session:
            self.throttle.passed(session, ticket)

    def _fail(self, ticket: Ticket) -> None:
        with self._database.transaction() as session:
            self.throttle.failed(session, ticket)
