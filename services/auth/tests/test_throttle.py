"""Guessing passwords: slow for whoever guesses, the same for whatever is guessed at, and never a lock for the owner."""

import asyncio
import hashlib
import time
from datetime import datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select

from espalier.auth.v1 import resources_pb2, service_pb2, sessions_pb2, sessions_pb2_grpc
from espalier_auth.models import User
from espalier_auth.passwords import Passwords
from espalier_auth.throttle import service as throttle
from espalier_auth.throttle.models import PasswordCount
from espalier_auth.throttle.service import OF_ACCOUNT, OF_ADDRESS, OF_KNOWN_PLACE, OF_STRANGERS, Limit
from espalier_common.db import utc_now
from espalier_common.rpc.status import from_rpc_error
from espalier_common.testing.rpc import refusal_bytes

SECRET = "the secret of the gateway"
GATEWAY = {"service_secret_hashes": {"gateway": hashlib.sha256(SECRET.encode()).hexdigest()}}
PASSWORD = "correct horse battery"


class Visitor:
    """Somebody who signs in through the gateway from an address."""

    def __init__(self, auth: Any, token: str, address: str) -> None:
        self._stub = auth.sign_in()
        self._metadata = [("x-espalier-client-address", address), ("x-espalier-gateway", token)]

    async def login(self, password: str, *, username: str = "admin", device_token: str = "") -> resources_pb2.TokenPair:
        request = service_pb2.LoginRequest(username=username, password=password, device_token=device_token)
        pair: resources_pb2.TokenPair = await self._stub.Login(request, metadata=self._metadata)
        return pair

    async def fails(
        self, *, username: str = "admin", password: str = "a wrong password", device_token: str = ""
    ) -> Any:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.login(password, username=username, device_token=device_token)
        return refused.value


async def gateway_token(auth: Any) -> str:
    request = service_pb2.IssueServiceTokenRequest(service="gateway", secret=SECRET)
    token: str = (await auth.sign_in().IssueServiceToken(request)).access_token
    return token


def reason(error: grpc.aio.AioRpcError) -> str:
    return from_rpc_error(error).reason


class Clock:
    """The time as the throttle sees it: it stands until the test moves it, however slow the machine is."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(throttle, "utc_now", found)
    return found


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that passwords were checked against."""
    hashes: list[str] = []
    matches = Passwords._matches

    def spy(self: Passwords, password_hash: str, password: str) -> bool:
        hashes.append(password_hash)
        return matches(self, password_hash, password)

    monkeypatch.setattr(Passwords, "_matches", spy)
    return hashes


def kept_hash(auth: Any) -> str:
    with auth.database.transaction() as session:
        found: str = session.scalars(select(User.password_hash).where(User.username == "admin")).one()
    return found


async def lock(visitor: Visitor, clock: Clock, *, username: str = "admin") -> None:
    """Ten failures, each after the wait that the one before brought."""
    for _ in range(10):
        await visitor.fails(username=username)
        clock.advance(seconds=70)
    assert reason(await visitor.fails(username=username, password=PASSWORD)) == "INVALID_CREDENTIALS"


async def test_of_two_hundred_parallel_tries_over_two_replicas_at_most_ten_are_checked(
    start_auth: Any, checked: list[str]
) -> None:
    replicas = [await start_auth(**GATEWAY), await start_auth(**GATEWAY)]
    kept = kept_hash(replicas[0])
    token = await gateway_token(replicas[0])
    # From twenty addresses, so that no address is slowed down before the account is.
    tries = [Visitor(replicas[n % 2], token, f"192.0.2.{n % 20}").fails() for n in range(200)]
    answers = {reason(answer) for answer in await asyncio.gather(*tries)}

    assert answers <= {"INVALID_CREDENTIALS", "TOO_MANY_PASSWORD_TRIES"}
    assert 1 <= checked.count(kept) <= 10


async def test_unknown_user_wrong_password_and_locked_account_get_the_same_bytes_in_the_same_time(
    start_auth: Any, clock: Clock, checked: list[str]
) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    await auth.create_user("mia", roles=["viewer"])
    await lock(Visitor(auth, token, "192.0.2.1"), clock)
    checked.clear()
    seconds: dict[str, list[float]] = {"admin": [], "mia": [], "nobody": []}
    answers: set[bytes] = set()
    for number in range(4):
        visitor = Visitor(auth, token, f"198.51.100.{number}")
        for username, taken in seconds.items():
            started = time.perf_counter()
            answers.add(refusal_bytes(await visitor.fails(username=username)))
            taken.append(time.perf_counter() - started)

    assert len(answers) == 1
    # Each costs one check, of parameters that are the same for all.
    assert len(checked) == sum(map(len, seconds.values()))
    # The quickest of each, for a busy machine slows down any of them; a check left out would make it ten times faster.
    quickest = [min(taken) for taken in seconds.values()]
    assert max(quickest) / min(quickest) < 2.5
    # Nor does a try that was shut out leave anything under way, which would shut out others.
    with auth.database.transaction() as session:
        assert not any(session.scalars(select(PasswordCount.running)))


async def test_a_locked_account_opens_by_itself_after_a_quarter_of_an_hour(start_auth: Any, clock: Clock) -> None:
    auth = await start_auth(**GATEWAY)
    visitor = Visitor(auth, await gateway_token(auth), "192.0.2.1")
    await lock(visitor, clock)
    clock.advance(minutes=15)

    assert (await visitor.login(PASSWORD)).access_token


async def test_the_owner_signs_in_from_his_address_while_strangers_keep_his_account_locked(
    start_auth: Any, clock: Clock
) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    owner, stranger = Visitor(auth, token, "203.0.113.7"), Visitor(auth, token, "192.0.2.1")
    await owner.login(PASSWORD)
    await lock(stranger, clock)

    assert (await owner.login(PASSWORD)).access_token
    assert reason(await stranger.fails(password=PASSWORD)) == "INVALID_CREDENTIALS"


async def test_the_owner_signs_in_on_his_device_from_a_new_address_while_his_account_is_locked(
    start_auth: Any, clock: Clock
) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    device = (await Visitor(auth, token, "203.0.113.7").login(PASSWORD)).device_token
    stranger = Visitor(auth, token, "192.0.2.1")
    await lock(stranger, clock)

    # From the very address that guesses: the device alone tells them apart.
    assert (await stranger.login(PASSWORD, device_token=device)).access_token
    another = Visitor(auth, token, "192.0.2.2")
    for forged in (device[:-2] + "AA", "x", "%%%", device + "A"):
        assert reason(await another.fails(password=PASSWORD, device_token=forged)) == "INVALID_CREDENTIALS"


async def test_a_device_of_one_user_is_no_device_of_another(start_auth: Any, clock: Clock) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    await auth.create_user("mia", roles=["viewer"], password="a quiet green lamp")
    device = (await Visitor(auth, token, "203.0.113.7").login("a quiet green lamp", username="mia")).device_token
    await lock(Visitor(auth, token, "192.0.2.1"), clock)

    stranger = Visitor(auth, token, "192.0.2.2")
    assert reason(await stranger.fails(password=PASSWORD, device_token=device)) == "INVALID_CREDENTIALS"


async def test_an_address_that_guesses_over_many_accounts_is_told_to_wait(start_auth: Any, clock: Clock) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    guesser = Visitor(auth, token, "2001:db8:1:1::1")
    await asyncio.gather(*(guesser.fails(username=f"somebody{number}") for number in range(OF_ADDRESS.free)))
    # Another address of the same /64 is the same guesser.
    refused = await Visitor(auth, token, "2001:db8:1:1::2").fails(password=PASSWORD)

    assert reason(refused) == "TOO_MANY_PASSWORD_TRIES"
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert from_rpc_error(refused).retry_after >= 1  # type: ignore[attr-defined]
    assert (await Visitor(auth, token, "2001:db8:1:2::1").login(PASSWORD)).access_token
    clock.advance(seconds=2)
    assert (await guesser.login(PASSWORD)).access_token


async def test_whoever_holds_many_known_places_has_twenty_tries_over_two_replicas_and_every_path(
    start_auth: Any, clock: Clock, checked: list[str]
) -> None:
    replicas = [await start_auth(**GATEWAY), await start_auth(**GATEWAY)]
    token = await gateway_token(replicas[0])
    addresses = [f"203.0.113.{number}" for number in range(3)]
    pairs = [await Visitor(replicas[0], token, address).login(PASSWORD) for address in addresses]
    kept = kept_hash(replicas[0])
    checked.clear()

    async def change(replica: Any, pair: Any) -> None:
        request = service_pb2.ChangePasswordRequest(current_password="a wrong one", new_password="an orange bicycle")
        with pytest.raises(grpc.aio.AioRpcError):
            await replica.users(pair.access_token).ChangePassword(request)

    for number in range(6):
        here, there = replicas[number % 2], replicas[1 - number % 2]
        await Visitor(here, token, "192.0.2.1").fails()
        for address, pair in zip(addresses, pairs, strict=True):
            await Visitor(there, token, address).fails()
            await Visitor(here, token, "192.0.2.1").fails(device_token=pair.device_token)
            await change(there, pair)
        clock.advance(seconds=40)

    assert checked.count(kept) == OF_ACCOUNT.most
    for replica in replicas:
        assert reason(await Visitor(replica, token, addresses[0]).fails(password=PASSWORD)) == "INVALID_CREDENTIALS"
    # Nobody stays shut out: when the time is over the owner is let in where he is known.
    clock.advance(minutes=15)
    assert (await Visitor(replicas[1], token, addresses[0]).login(PASSWORD)).access_token


async def test_a_known_place_that_was_guessed_at_is_known_no_more_until_the_right_password_is_given_there(
    start_auth: Any, clock: Clock
) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    device = (await Visitor(auth, token, "203.0.113.7").login(PASSWORD)).device_token
    thief = Visitor(auth, token, "198.51.100.1")
    for _ in range(OF_KNOWN_PLACE.most):
        await thief.fails(device_token=device)
        clock.advance(minutes=30)  # the count of a known place does not end by itself
    await lock(Visitor(auth, token, "192.0.2.1"), clock)

    assert reason(await thief.fails(password=PASSWORD, device_token=device)) == "INVALID_CREDENTIALS"
    clock.advance(minutes=15)
    assert (await thief.login(PASSWORD, device_token=device)).access_token
    await lock(Visitor(auth, token, "192.0.2.1"), clock)
    assert (await Visitor(auth, token, "198.51.100.2").login(PASSWORD, device_token=device)).access_token


async def test_who_shares_an_address_with_the_owner_does_not_shut_out_his_device(start_auth: Any, clock: Clock) -> None:
    auth = await start_auth(**GATEWAY)
    token = await gateway_token(auth)
    office = Visitor(auth, token, "203.0.113.7")
    device = (await office.login(PASSWORD)).device_token
    for _ in range(20):
        await office.fails()
        clock.advance(seconds=10)

    assert reason(await office.fails(password=PASSWORD)) == "INVALID_CREDENTIALS"
    assert (await office.login(PASSWORD, device_token=device)).access_token


async def test_of_forty_parallel_changes_over_two_replicas_few_are_checked(start_auth: Any, checked: list[str]) -> None:
    replicas = [await start_auth(), await start_auth()]
    token, kept = (await replicas[0].login()).access_token, kept_hash(replicas[0])
    stubs = [replica.users(token) for replica in replicas]
    request = service_pb2.ChangePasswordRequest(current_password="a wrong password", new_password="an orange bicycle")
    checked.clear()

    async def change(number: int) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs[number % 2].ChangePassword(request)
        return reason(refused.value)

    answers = await asyncio.gather(*(change(number) for number in range(40)))

    assert set(answers) <= {"INVALID_PASSWORD", "TOO_MANY_PASSWORD_TRIES"}
    # Of the session, and then of anybody: what it used up is a stranger's.
    assert 1 <= checked.count(kept) <= OF_STRANGERS.most


async def test_an_address_that_nobody_vouches_for_counts_for_nothing(start_auth: Any) -> None:
    auth = await start_auth(**GATEWAY)
    user_token = (await auth.login()).access_token
    for forged in ("made up", user_token):
        await Visitor(auth, forged, "203.0.113.99").login(PASSWORD)

    assert {each.address for each in await _sessions(auth, user_token)} == {"127.0.0.1"}


async def test_the_current_password_is_counted_where_it_is_changed(auth: Any, clock: Clock) -> None:
    pair = await auth.login()
    users = auth.users(pair.access_token)
    request = service_pb2.ChangePasswordRequest(current_password="a wrong password", new_password="an orange bicycle")
    reasons = []
    for _ in range(6):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await users.ChangePassword(request)
        reasons.append(reason(refused.value))

    assert reasons == ["INVALID_PASSWORD"] * 4 + ["TOO_MANY_PASSWORD_TRIES"] * 2
    # Whoever holds a stolen session guesses on it alone: the owner signs in as ever.
    assert (await auth.login()).access_token


async def test_a_right_password_forgets_the_failures(start_auth: Any, clock: Clock) -> None:
    auth = await start_auth(**GATEWAY)
    visitor = Visitor(auth, await gateway_token(auth), "192.0.2.1")
    for _ in range(5):
        for _ in range(3):
            await visitor.fails()
        assert (await visitor.login(PASSWORD)).access_token


async def test_usernames_typed_at_sign_in_are_not_kept(auth: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login("my secret password", "x")

    with auth.database.transaction() as session:
        buckets = session.scalars(select(PasswordCount.bucket)).all()
    assert buckets
    assert all(len(bucket) == 64 and "secret" not in bucket for bucket in buckets)


def test_the_wait_grows_and_stays_bounded() -> None:
    limit = Limit(most=50, free=3, first_wait=1, longest_wait=300)

    assert [limit.wait_after(count).total_seconds() for count in (0, 2, 3, 4, 5, 20)] == [0, 0, 1, 2, 4, 300]
    assert utc_now() + limit.wait_after(1000) < utc_now() + timedelta(seconds=301)


async def _sessions(auth: Any, token: str) -> Any:
    stub = sessions_pb2_grpc.SessionServiceStub(auth.channel(token))
    return (await stub.ListMySessions(sessions_pb2.ListMySessionsRequest())).sessions
