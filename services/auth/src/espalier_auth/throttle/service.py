"""How often passwords may be tried, and with them the codes of second factors, which count alike.

Each call is part of the caller's transaction.

Guessing is slow for one account, however many places it comes from, and nobody shuts out another for good:

    whose                what may fail                                             refused how
    ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    an account's         20 in 15 minutes, from everywhere together; the first     as a wrong password
                         10 of them are anybody's, the rest is for known places
    a known place's      6 since the right password was last given there; then     as a wrong password (a session,
                         the place is known no more, until it is given again       which proves who it is, with 429)
    an address's         200 in 15 minutes, over all accounts                      429 with Retry-After

A place is known when the right password was given there: a device by its token, a session, an address for 90 days. So a
stranger who keeps an account locked locks it for strangers; who guesses at a known place (an office's address, a stolen
device) has six tries, once, and can close the account for a quarter of an hour at most, since what he used up counts as
a stranger's from then on. Whatever places somebody holds, an account has 20 wrong tries in any 15 minutes.

From the fifth failure on each is followed by a wait that doubles: anybody's at the account, one's own at a known place.

A locked account answers with the bytes and the time of a wrong password, or it would tell that it exists. An address
is told how long to wait: that says nothing about any account, for all failures from there count alike.

A try is counted before its check (under way) and stays counted when it fails: parallel tries cannot outrun the count.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from sqlalchemy.orm import Session

from espalier_auth.throttle import repository
from espalier_auth.throttle.repository import Bucket, Count
from espalier_common.db import new_id, utc_now

WINDOW = timedelta(minutes=15)
# A check that has not ended by then died with its process.
UNDER_WAY = timedelta(seconds=60)
# Longer than they count. What failed at a known place counts until the place is forgotten itself.
KEPT = timedelta(hours=1)
KEPT_OF_PLACE = timedelta(days=366)


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


OF_STRANGERS = Limit(most=10, free=4)
OF_KNOWN_PLACE = Limit(most=6, free=4)
OF_ACCOUNT = Limit(most=20, free=20)
OF_ADDRESS = Limit(most=200, free=30)


@dataclass(frozen=True)
class Place:
    """The buckets in which a try counts: of the account, of the address, of the known place; empty ones do not.

    `vouched`: the place is known by what its owner holds, not by its address, so what others fail from there is nothing
    to him.
    """

    account: str = ""
    address: str = ""
    known: str = ""
    vouched: bool = False

    @property
    def buckets(self) -> list[Bucket]:
        named = ((self.account, KEPT), (self.address, KEPT), (self.known, KEPT_OF_PLACE))
        return [Bucket(name, kept) for name, kept in named if name]


@dataclass(frozen=True)
class Refusal:
    """A try that was not let through; `seconds` until the next may be."""

    by_address: bool
    seconds: float


@dataclass(frozen=True)
class Ticket:
    """A try that is counted as under way; without an id it is not counted.

    One that is `shut_out` of its account counts nowhere, but is settled as the others are, or it would be answered
    sooner.
    """

    place: Place
    id: str
    shut_out: Refusal | None = None


class Busy:
    """As many are under way as may fail: their end decides."""


class NotNow(Exception):
    """A try was not let through, for now or for its address.

    It was counted before it was judged, and the end of its transaction undoes that.
    """

    def __init__(self, found: Refusal | Busy) -> None:
        super().__init__()
        self.found = found


class Throttle:
    """Counts tries of passwords. `enabled=False` lets all through."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled

    def take(self, session: Session, place: Place) -> Ticket:
        """Counts a try, atomically over all replicas. Raises NotNow, which has to end the transaction.

        A ticket that is `shut_out` must not be let through.
        """
        if not self._enabled:
            return Ticket(place, "")
        now, ticket = utc_now(), Ticket(place, new_id())
        counts = repository.begin_try(session, place.buckets, ticket.id, now)
        for count in counts.values():
            del count.running[ticket.id]
        found = _refusal(place, counts, now)
        if isinstance(found, Refusal) and not found.by_address:
            self.withdraw(session, ticket)
            return replace(ticket, shut_out=found)
        if found is not None:
            raise NotNow(found)
        return ticket

    def passed(self, session: Session, ticket: Ticket) -> None:
        """The password was right: what failed before at the place counts no more there."""
        if ticket.id:
            clear = ticket.place.known
            repository.end_try(session, ticket.place.buckets, ticket.id, now=utc_now(), clear=clear)

    def failed(self, session: Session, ticket: Ticket) -> None:
        """The password was wrong."""
        if ticket.id:
            now, place = utc_now(), ticket.place
            repository.fail_try(
                session, place.buckets, ticket.id, now=now, endless=place.known, since=now - WINDOW - UNDER_WAY
            )

    def withdraw(self, session: Session, ticket: Ticket) -> None:
        """It counts for nothing after all."""
        if ticket.id:
            repository.end_try(session, ticket.place.buckets, ticket.id, now=utc_now(), clear="")

    def unlock(self, session: Session, username: str) -> None:
        """The owner proved himself otherwise, by a link for a new password."""
        repository.forget(session, account_bucket(username))


def account_bucket(username: str) -> str:
    """Tries of one account, wherever from. Unknown names have one too."""
    return _name("account", username.lower())


def account_at_address(username: str, address: str) -> str:
    """Tries of one account from one address that its owner signed in from."""
    return _name("account", username.lower(), _network(address))


def address_bucket(address: str) -> str:
    """Tries from one address; of IPv6 from one /64, which is what one subscriber has."""
    return _name("address", _network(address))


def device_bucket(device: str) -> str:
    """Tries from one device, or session, that the account's owner signed in on."""
    return _name("device", device)


def action_bucket(action: str, address: str) -> str:
    """Something other than a password that may be tried from one address."""
    return _name(action, _network(address))


def _refusal(place: Place, counts: dict[str, Count], now: datetime) -> Refusal | Busy | None:
    known = counts.get(place.known)
    if known is not None and len(known.failed) >= OF_KNOWN_PLACE.most:
        known = None
    # The address first: its answer must not depend on the account.
    checks = [(place.address, OF_ADDRESS, WINDOW)] if not (known and place.vouched) else []
    if known is not None:
        checks += [(place.known, OF_KNOWN_PLACE, KEPT_OF_PLACE), (place.account, OF_ACCOUNT, WINDOW)]
    else:
        checks.append((place.account, OF_STRANGERS, WINDOW))
    for bucket, limit, window in checks:
        found = _judge(counts[bucket], limit, now=now, window=window) if bucket else None
        if isinstance(found, timedelta):
            return Refusal(bucket == place.address, found.total_seconds())
        if found is not None:
            return found
    return None


def _judge(count: Count, limit: Limit, *, now: datetime, window: timedelta) -> timedelta | Busy | None:
    """The time to wait, Busy, or None when one more may be tried."""
    moment = now.timestamp()
    failures = [each for each in count.failed if each > moment - window.total_seconds()]
    under_way = sum(begun > moment - UNDER_WAY.total_seconds() for begun in count.running.values())
    if len(failures) >= limit.most:
        return timedelta(seconds=failures[-limit.most] - moment) + window
    if failures and (due := failures[-1] + limit.wait_after(len(failures)).total_seconds()) > moment:
        return timedelta(seconds=due - moment)
    # Once each failure brings a wait, one at a time.
    room = 1 if len(failures) >= limit.free else limit.most - len(failures)
    return Busy() if under_way >= room else None


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    return address if not isinstance(parsed, IPv6Address) else parsed.exploded[:19]


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
