"""Signing in with a second factor: a code is good once, a wrong one counts, without the password nothing is told."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import select, update

from espalier.auth.v1 import resources_pb2, second_factor_pb2, service_pb2
from espalier_auth.passwords import Passwords
from espalier_auth.second_factor.models import SecondFactor
from espalier_auth.second_factor.service import MOST_WRONG_CODES
from espalier_auth.throttle import service as throttle
from espalier_auth.throttle.models import PasswordCount
from espalier_common.rpc.status import from_rpc_error
from espalier_common.testing.rpc import refusal_bytes

SECRET = "the secret of the gateway"
GATEWAY = {"service_secret_hashes": {"gateway": hashlib.sha256(SECRET.encode()).hexdigest()}}

Login = Callable[..., Awaitable[resources_pb2.TokenPair]]


async def through_gateway(auth: Any) -> Login:
    """A sign-in as the gateway passes it on, from an address of one's choice."""
    request = service_pb2.IssueServiceTokenRequest(service="gateway", secret=SECRET)
    token = (await auth.sign_in().IssueServiceToken(request)).access_token

    async def login(owner: Any, *, address: str, code: str = "", **fields: str) -> resources_pb2.TokenPair:
        given = {"username": owner.username, "password": owner.password, "code": code, **fields}
        metadata = [("x-espalier-client-address", address), ("x-espalier-gateway", token)]
        pair: resources_pb2.TokenPair = await auth.sign_in().Login(service_pb2.LoginRequest(**given), metadata=metadata)
        return pair

    return login


async def reason_of(call: Awaitable[Any]) -> str:
    """Why a call is refused; empty when it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error).reason
    return ""


async def test_of_twenty_parallel_sign_ins_with_one_code_over_two_replicas_one_gets_in(
    start_auth: Any, owner_at: Any
) -> None:
    replicas = [await start_auth(**GATEWAY), await start_auth(**GATEWAY)]
    mia = await (await owner_at(replicas[0], "mia")).enrol()
    logins = [await through_gateway(replica) for replica in replicas]
    for code in (mia.next_code(), mia.recovery_codes[0]):
        tries = [logins[n % 2](mia, address=f"192.0.2.{n}", code=code) for n in range(20)]
        reasons = await asyncio.gather(*map(reason_of, tries))

        assert reasons.count("") == 1
        # The others are told that the code is used up or, once there were many, that they have to wait.
        assert set(reasons) <= {"", "SECOND_FACTOR_WRONG", "INVALID_CREDENTIALS"}
        with replicas[0].database.transaction() as session:
            session.execute(update(PasswordCount).values(failed=[]))


async def test_a_code_is_good_once_and_none_from_before_it_is(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    mia.clock.advance(seconds=60)
    earlier, now = mia.code(steps=-1), mia.code()

    assert await reason_of(mia.login(now)) == ""
    assert [await reason_of(mia.login(code)) for code in (now, earlier)] == ["SECOND_FACTOR_WRONG"] * 2
    # Typed in groups.
    assert await reason_of(mia.login(f"{mia.next_code()[:3]} {mia.code()[3:]}")) == ""


async def test_a_code_of_another_half_minute_is_refused_and_told_only_once_it_is_over(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    mia.clock.advance(minutes=20)
    for code, told in (
        (mia.code(steps=-1), "ran out"),
        (mia.code(steps=-10), "ran out"),
        (mia.code(steps=-11), "is wrong"),
        (mia.code(steps=1), "is wrong"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=f"The code {told}") as refused:
            await mia.login(code)
        assert from_rpc_error(refused.value).reason == "SECOND_FACTOR_WRONG"
        with auth.database.transaction() as session:
            session.execute(update(PasswordCount).values(failed=[]))
    assert await reason_of(mia.login(mia.code())) == ""


async def test_each_recovery_code_signs_in_once(auth: Any, owner_at: Any) -> None:
    mia, otto = [await (await owner_at(auth, name)).enrol() for name in ("mia", "otto")]
    first = mia.recovery_codes[0]

    assert await reason_of(mia.login(first.upper().replace("-", " "))) == ""
    state = await mia.factor().GetMySecondFactor(second_factor_pb2.GetMySecondFactorRequest())
    assert state.recovery_codes_left == 9
    assert await reason_of(mia.login(first)) == "SECOND_FACTOR_WRONG"
    assert await reason_of(mia.login(otto.recovery_codes[0])) == "SECOND_FACTOR_WRONG"
    assert await reason_of(otto.login(otto.recovery_codes[0])) == ""


async def test_a_wrong_code_counts_as_a_wrong_password_and_a_missing_one_as_nothing(
    start_auth: Any, owner_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = await start_auth(**GATEWAY)
    mia = await (await owner_at(auth, "mia")).enrol()
    monkeypatch.setattr(throttle, "utc_now", mia.clock)
    login = await through_gateway(auth)
    for number in range(10):
        # A right password alone neither clears what was guessed nor adds to it.
        assert await reason_of(login(mia, address="192.0.2.1")) == "SECOND_FACTOR_REQUIRED"
        guess = {"code": mia.wrong_code()} if number % 2 else {"password": "a wrong password"}
        assert await reason_of(login(mia, address="192.0.2.1", **guess)) == (
            "SECOND_FACTOR_WRONG" if number % 2 else "INVALID_CREDENTIALS"
        )
        mia.clock.advance(seconds=70)

    # Ten guesses, of either kind, are anybody's; then the account waits, also for who has both.
    assert await reason_of(login(mia, address="192.0.2.1", code=mia.code())) == "INVALID_CREDENTIALS"
    assert await reason_of(login(mia, address="198.51.100.1", code=mia.code())) == "INVALID_CREDENTIALS"
    with auth.database.transaction() as session:
        assert not any(session.scalars(select(PasswordCount.running)))
    mia.clock.advance(minutes=15)
    assert await reason_of(login(mia, address="192.0.2.1", code=mia.code())) == ""


async def test_parallel_wrong_codes_do_not_outrun_the_count(start_auth: Any, owner_at: Any) -> None:
    replicas = [await start_auth(**GATEWAY), await start_auth(**GATEWAY)]
    mia = await (await owner_at(replicas[0], "mia")).enrol()
    logins = [await through_gateway(replica) for replica in replicas]
    tries = [logins[n % 2](mia, address=f"192.0.2.{n % 20}", code=mia.wrong_code()) for n in range(40)]
    reasons = await asyncio.gather(*map(reason_of, tries))

    assert set(reasons) <= {"SECOND_FACTOR_WRONG", "INVALID_CREDENTIALS", "TOO_MANY_PASSWORD_TRIES"}
    assert 1 <= reasons.count("SECOND_FACTOR_WRONG") <= 10


async def test_at_ones_account_wrong_codes_are_counted_and_then_one_waits(
    auth: Any, owner_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    monkeypatch.setattr(throttle, "utc_now", mia.clock)
    wrong = second_factor_pb2.RemoveMySecondFactorRequest(code=mia.wrong_code())
    reasons = [await reason_of(mia.factor().RemoveMySecondFactor(wrong)) for _ in range(5)]

    assert reasons == ["SECOND_FACTOR_WRONG"] * 4 + ["TOO_MANY_PASSWORD_TRIES"]


async def test_after_a_hundred_wrong_codes_a_recovery_code_alone_signs_in(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    with auth.database.transaction() as session:
        session.execute(update(SecondFactor).values(wrong_codes=MOST_WRONG_CODES - 1))

    assert await reason_of(mia.login(mia.wrong_code())) == "SECOND_FACTOR_WRONG"
    with pytest.raises(grpc.aio.AioRpcError, match="Too many wrong codes") as refused:
        await mia.login(mia.next_code())
    assert from_rpc_error(refused.value).reason == "SECOND_FACTOR_WRONG"
    assert await reason_of(mia.login(mia.recovery_codes[0])) == ""
    assert await reason_of(mia.login(mia.next_code())) == ""


async def test_who_does_not_know_the_password_learns_nothing_of_the_factor(
    start_auth: Any, owner_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = await start_auth(**GATEWAY)
    mia = await (await owner_at(auth, "mia")).enrol()
    await owner_at(auth, "otto")
    login = await through_gateway(auth)
    checked: list[str] = []
    matches = Passwords._matches
    monkeypatch.setattr(Passwords, "_matches", lambda *given: (checked.append(given[1]), matches(*given))[1])
    answers = set()
    tried = [
        {"username": username, "code": code, "password": "a wrong password"}
        for username in ("mia", "otto", "nobody")
        for code in ("", mia.next_code(), mia.recovery_codes[0], "x")
    ]
    for number, fields in enumerate(tried):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await login(mia, address=f"192.0.2.{number}", **fields)
        answers.add(refusal_bytes(refused.value))

    assert len(answers) == 1
    # Each costs the check of a password, and no code was used.
    assert len(checked) == len(tried)
    assert await reason_of(mia.login(mia.recovery_codes[0])) == ""


async def test_who_has_no_factor_is_not_asked_whatever_he_sends(auth: Any, owner_at: Any) -> None:
    otto = await owner_at(auth, "otto")

    assert await reason_of(otto.login("123456")) == ""
