"""Refresh tokens: one use each, and a second use ends the session."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select, update

from espalier.auth.v1 import resources_pb2, service_pb2, service_pb2_grpc
from espalier_auth.access.rights import AccessRights
from espalier_auth.models import LoginSession, RefreshToken, User
from espalier_auth.roles import Roles
from espalier_auth.service import Sessions
from espalier_auth.settings import SessionRules
from espalier_common.db import utc_now
from espalier_common.rpc.status import from_rpc_error


async def test_a_refresh_token_gives_the_next_pair(auth: Any) -> None:
    first = await auth.login()
    second = await _refresh(auth, first.refresh_token)
    third = await _refresh(auth, second.refresh_token)

    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert len({first.access_token, second.access_token, third.access_token}) == 3


async def test_a_used_refresh_token_ends_the_whole_session(auth: Any, caplog: pytest.LogCaptureFixture) -> None:
    first = await auth.login()
    second = await _refresh(auth, first.refresh_token)
    third = await _refresh(auth, second.refresh_token)

    # The grandparent comes again.
    await expect_refused(auth, first.refresh_token)

    await expect_refused(auth, third.refresh_token)
    assert _sessions(auth) == [("TOKEN_REUSED", True)]
    assert "a used refresh credential came again, session ended" in caplog.text
    assert first.refresh_token not in caplog.text


async def test_another_session_of_the_same_user_lives_on(auth: Any) -> None:
    stolen, other = await auth.login(), await auth.login()
    await _refresh(auth, stolen.refresh_token)
    await expect_refused(auth, stolen.refresh_token)

    assert (await _refresh(auth, other.refresh_token)).access_token


async def test_of_twenty_parallel_refreshes_exactly_one_succeeds(auth: Any) -> None:
    # Several connections, or the calls of a round would come one after the other out of one.
    stubs = [service_pb2_grpc.AuthServiceStub(auth.channel()) for _ in range(4)]

    async def attempt(number: int, token: str) -> str:
        try:
            pair = await stubs[number % 4].Refresh(service_pb2.RefreshRequest(refresh_token=token))
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason
        return str(pair.refresh_token)

    for token in await asyncio.to_thread(_begin, auth, 200):
        answers = await asyncio.gather(*(attempt(number, token) for number in range(20)))
        successes = [answer for answer in answers if answer != "INVALID_REFRESH_TOKEN"]
        assert len(successes) == 1
        # The nineteen others were second uses: the successor is dead too.
        assert await attempt(0, successes[0]) == "INVALID_REFRESH_TOKEN"


async def test_signing_out_ends_the_session_and_succeeds_again(auth: Any) -> None:
    pair = await auth.login()
    request = service_pb2.LogoutRequest(refresh_token=pair.refresh_token)
    await auth.sign_in().Logout(request)
    await auth.sign_in().Logout(request)
    await auth.sign_in().Logout(service_pb2.LogoutRequest(refresh_token="unknown"))
    await auth.sign_in().Logout(service_pb2.LogoutRequest())

    await expect_refused(auth, pair.refresh_token)
    assert _sessions(auth) == [("SIGNED_OUT", True)]


@pytest.mark.parametrize("token", ["x", "' OR 1=1 --", "a" * 512])
async def test_a_made_up_token_is_refused_and_begins_nothing(auth: Any, token: str) -> None:
    await expect_refused(auth, token)
    assert _sessions(auth) == []


async def test_an_expired_token_is_refused_and_ends_nothing(auth: Any) -> None:
    pair = await auth.login()
    with auth.database.transaction() as session:
        session.execute(update(RefreshToken).values(expires_at=utc_now() - timedelta(seconds=1)))

    await expect_refused(auth, pair.refresh_token)
    assert _sessions(auth) == [("", False)]


async def test_a_session_ends_after_its_full_time_however_busy_it_is(auth: Any) -> None:
    pair = await auth.login()
    with auth.database.transaction() as session:
        session.execute(update(LoginSession).values(expires_at=utc_now() + timedelta(hours=1)))
    pair = await _refresh(auth, pair.refresh_token)

    with auth.database.transaction() as session:
        token = session.scalars(select(RefreshToken).where(RefreshToken.used_at.is_(None))).one()
        login = session.scalars(select(LoginSession)).one()
        assert token.expires_at == login.expires_at
        login.expires_at = utc_now() - timedelta(seconds=1)
    await expect_refused(auth, pair.refresh_token)


async def test_a_session_survives_the_restart_of_auth(start_auth: Any) -> None:
    before = await start_auth()
    pair = await before.login()
    after = await start_auth()

    assert (await _refresh(after, pair.refresh_token)).access_token
    await expect_refused(after, pair.refresh_token)


async def test_the_password_changes_and_every_session_ends(auth: Any) -> None:
    pair, other = await auth.login(), await auth.login()
    await _change_password(auth, pair, "correct horse battery", "an orange bicycle")

    await expect_refused(auth, pair.refresh_token)
    await expect_refused(auth, other.refresh_token)
    renewed = await auth.login(password="an orange bicycle")
    assert not renewed.password_change_required
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login()


@pytest.mark.parametrize(
    ("current", "new", "field", "reason"),
    [
        ("wrong horse battery", "an orange bicycle", "current_password", "WRONG_PASSWORD"),
        ("correct horse battery", "correct horse battery", "new_password", "SAME_PASSWORD"),
        ("correct horse battery", "short", "new_password", "TOO_SHORT"),
        ("correct horse battery", "password12345678", "new_password", "TOO_EASY"),
    ],
)
async def test_a_change_of_password_is_refused_with_its_field(
    auth: Any, current: str, new: str, field: str, reason: str
) -> None:
    pair = await auth.login()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _change_password(auth, pair, current, new)

    violations = from_rpc_error(refused.value).violations  # type: ignore[attr-defined]
    assert [(violation.field, violation.reason) for violation in violations] == [(field, reason)]
    assert await auth.login()


async def test_long_ended_sessions_are_forgotten_with_their_tokens(auth: Any) -> None:
    for _ in range(3):
        await auth.login()
    with auth.database.transaction() as session:
        old, revoked, _ = session.scalars(select(LoginSession).order_by(LoginSession.id)).all()
        old.expires_at = utc_now() - timedelta(days=8)
        revoked.revoked_at = utc_now() - timedelta(days=8)
    with auth.database.transaction() as session:
        _use_cases().forget_ended(session, ended_for=timedelta(days=7))
        assert len(session.scalars(select(LoginSession)).all()) == 1
        assert len(session.scalars(select(RefreshToken)).all()) == 1


async def _refresh(auth: Any, token: str) -> resources_pb2.TokenPair:
    pair: resources_pb2.TokenPair = await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=token))
    return pair


async def expect_refused(auth: Any, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _refresh(auth, token)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert from_rpc_error(refused.value).reason == "INVALID_REFRESH_TOKEN"


async def _change_password(auth: Any, pair: resources_pb2.TokenPair, current: str, new: str) -> None:
    request = service_pb2.ChangePasswordRequest(current_password=current, new_password=new)
    await auth.users(pair.access_token).ChangePassword(request)


def _sessions(auth: Any) -> list[tuple[str, bool]]:
    with auth.database.transaction() as session:
        return [(login.revoked_reason, login.revoked_at is not None) for login in session.scalars(select(LoginSession))]


def _begin(auth: Any, count: int) -> list[str]:
    """Sessions without the password's check, which takes most of the time of a sign-in; gives their refresh tokens."""
    with auth.database.transaction() as session:
        user = session.scalars(select(User).where(User.username == "admin")).one()
        return [_use_cases().begin(session, user).refresh_token for _ in range(count)]


def _use_cases() -> Sessions:
    return Sessions(lambda _: SessionRules(timedelta(days=14), timedelta(days=90)), AccessRights(Roles([])))
