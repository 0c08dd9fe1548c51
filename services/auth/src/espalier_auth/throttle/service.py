"""How often passwords may be tried. Each call is part of the caller's transaction.

What counts tries, so that guessing is slow for one account and from one address, and nobody shuts out another for good:

    from                                     counted in                 refused how
    ──────────────────────────────────────────────────────────────────────────────────────────────
    a device that signed in before           its own bucket             as a wrong password
    an address that signed in before         account at this address    as a wrong password
                                             and the address            429 with Retry-After
    anywhere else                            the account                as a wrong password
                                             and the address            429 with Retry-After

A locked account answers with the bytes and the time of a wrong password, or it would tell that it exists. An address
is told how long to wait: that says nothing about any account, for all failures from there count alike.

A try is counted before its check (in flight) and stays counted when it fails: parallel tries cannot outrun the count.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from sqlalchemy.orm import Session

from espalier_auth.throttle import repository
from espalier_auth.throttle.models import PasswordTry
from espalier_common.db import new_id, utc_now

WINDOW = timedelta(minutes=15)
# A check that has not ended by then died with its process.
IN_FLIGHT = timedelta(seconds=60)


@dataclass(frozen=True)
class Limit:
    """Failures in the window: `free` without a wait, then waits that double; after `most` the window has to move."""

    most: int
    free: int
    first_wait: float = 1.0
    longest_wait: float = 300.0

    def wait_after(self, failures: int) -> timedelta:
        """How long the next try has to wait after the last failure."""
        if failures < self.free:
            return timedelta()
        return timedelta(seconds=min(self.first_wait * 2 ** (failures - self.free), self.longest_wait))


OF_ACCOUNT = Limit(most=10, free=4)
OF_ADDRESS = Limit(most=200, free=30)


@dataclass(frozen=True)
class Place:
    """The buckets in which a try counts: that of the account, or device, and that of the address, if any."""

    account: str
    address: str = ""

    @property
    def buckets(self) -> list[str]:
        return [bucket for bucket in (self.account, self.address) if bucket]


@dataclass(frozen=True)
class Ticket:
    """A try that was let through and is counted in flight."""

    place: Place
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A try that was not let through; `seconds` until the next may be."""

    by_address: bool
    seconds: float


class Busy:
    """As many are in flight as may fail: their end decides."""


class Throttle:
    """Counts tries of passwords. `enabled=False` lets all through."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled

    def take(self, session: Session, place: Place) -> Ticket | Refusal | Busy:
        """Counts a try, or says why not. Atomic over all replicas."""
        if not self._enabled:
            return Ticket(place, ())
        now = utc_now()
        repository.lock_buckets(session, place.buckets)
        tries = repository.list_tries(session, place.buckets, since=now - WINDOW - IN_FLIGHT)
        # The address first: its answer must not depend on the account.
        for bucket, limit in ((place.address, OF_ADDRESS), (place.account, OF_ACCOUNT)):
            found = _judge([each for each in tries if each.bucket == bucket], limit, now) if bucket else None
            if isinstance(found, timedelta):
                return Refusal(bucket == place.address, found.total_seconds())
            if found is not None:
                return found
        return self._count(session, place, now)

    def passed(self, session: Session, ticket: Ticket) -> None:
        """The password was right: what failed before in the account's bucket counts no more."""
        if ticket.ids:
            repository.delete_tries(session, ticket.ids)
            repository.delete_failures(session, ticket.place.account)

    def failed(self, session: Session, ticket: Ticket) -> None:
        """The password was wrong."""
        if ticket.ids:
            repository.mark_failed(session, ticket.ids, utc_now())

    def withdraw(self, session: Session, ticket: Ticket) -> None:
        """It counts for nothing after all."""
        repository.delete_tries(session, ticket.ids)

    def unlock(self, session: Session, username: str) -> None:
        """The owner proved himself otherwise, by a link for a new password."""
        repository.delete_failures(session, account_bucket(username))

    def _count(self, session: Session, place: Place, now: datetime) -> Ticket:
        tries = [PasswordTry(id=new_id(), bucket=bucket, started_at=now) for bucket in place.buckets]
        session.add_all(tries)
        session.flush()
        return Ticket(place, tuple(each.id for each in tries))


def account_bucket(username: str, *, address: str = "") -> str:
    """Tries of one account; with an address those from there alone. Unknown names have one too."""
    return _name("account", username.lower(), address and _network(address))


def address_bucket(address: str) -> str:
    """Tries from one address; of IPv6 from one /64, which is what one subscriber has."""
    return _name("address", _network(address))


def device_bucket(device: str) -> str:
    """Tries from one device, or session, that the account's owner signed in on."""
    return _name("device", device)


def action_bucket(action: str, address: str) -> str:
    """Something other than a password that may be tried from one address."""
    return _name(action, _network(address))


def _judge(tries: Sequence[PasswordTry], limit: Limit, now: datetime) -> timedelta | Busy | None:
    """The time to wait, Busy, or None when one more may be tried."""
    failures = sorted(each.failed_at for each in tries if each.failed_at and each.failed_at > now - WINDOW)
    in_flight = sum(each.failed_at is None and each.started_at > now - IN_FLIGHT for each in tries)
    if len(failures) >= limit.most:
        return failures[-limit.most] + WINDOW - now
    if failures and (due := failures[-1] + limit.wait_after(len(failures))) > now:
        return due - now
    # Once each failure brings a wait, one at a time.
    room = 1 if len(failures) >= limit.free else limit.most - len(failures)
    return Busy() if in_flight >= room else None


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    return address if not isinstance(parsed, IPv6Address) else parsed.exploded[:19]


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
