"""One's sessions, and how soon what ends is over on other services."""

import asyncio
import hashlib
import time
import uuid
from datetime import UTC, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import update

from espalier.auth.v1 import resources_pb2, service_pb2, sessions_pb2, sessions_pb2_grpc
from espalier_auth.models import RefreshToken
from espalier_auth.service import hash_token
from espalier_auth.sessions.agents import device_of
from espalier_common.db import utc_now
from espalier_common.errors import Unauthenticated
from espalier_common.identity import ServiceIdentity, TokenVerifier
from espalier_common.public_keys import fetch_jwks
from espalier_common.revocations import Revocations, fetch_revocations
from espalier_common.rpc.status import from_rpc_error

CHAT = {"service_secret_hashes": {"chat": hashlib.sha256(b"the secret of chat").hexdigest()}}


class OtherService:
    """Verifies tokens as every service does, from what auth tells over gRPC."""

    def __init__(self, auth: Any) -> None:
        identity = ServiceIdentity(auth.address, name="chat", secret="the secret of chat")
        self.revocations = Revocations(fetch_revocations(auth.address, token=identity.token))
        self._verifier = TokenVerifier(fetch_jwks(auth.address), revocations=self.revocations)
        self._polling = asyncio.create_task(self.revocations.run())

    async def accepts(self, token: str) -> bool:
        if self._verifier.cached(token):
            return True
        try:
            await asyncio.to_thread(self._verifier.verify, token)
        except Unauthenticated:
            return False
        return True

    async def refuses_within(self, seconds: float, token: str) -> float:
        """The seconds until the token was refused, less those that asking takes on a slow machine."""
        started, slowest = time.monotonic(), 0.0
        async with asyncio.timeout(60):
            while True:
                asked = time.monotonic()
                if not await self.accepts(token):
                    break
                await asyncio.sleep(0.05)
                slowest = max(slowest, time.monotonic() - asked)
        took = time.monotonic() - started - 2 * slowest
        assert took < seconds
        return took

    async def close(self) -> None:
        self._polling.cancel()
        await asyncio.gather(self._polling, return_exceptions=True)


@pytest.fixture
async def auth(start_auth: Any) -> Any:
    return await start_auth(**CHAT)


@pytest.fixture
async def other(auth: Any) -> Any:
    service = OtherService(auth)
    yield service
    await service.close()


def devices(auth: Any, token: str) -> Any:
    return sessions_pb2_grpc.SessionServiceStub(auth.channel(token))


async def list_sessions(auth: Any, token: str) -> list[sessions_pb2.UserSession]:
    return list((await devices(auth, token).ListMySessions(sessions_pb2.ListMySessionsRequest())).sessions)


async def test_ones_sessions_are_listed_with_device_address_and_last_use(auth: Any) -> None:
    first, second = await auth.login(), await auth.login()
    await auth.create_user("mia", roles=["viewer"])
    await auth.login("mia", "a quiet green lamp")
    await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=first.refresh_token))
    found = await list_sessions(auth, second.access_token)

    # The first, used last; then the second; then that of the fixture's administrator who made the user.
    assert [each.current for each in found] == [False, False, True]
    assert {each.address for each in found} == {"127.0.0.1"}
    assert "gRPC" in found[0].device
    assert found[0].last_used_time.ToNanoseconds() > found[0].create_time.ToNanoseconds()
    assert all(abs(each.create_time.ToSeconds() - time.time()) < 600 for each in found)
    assert all(each.expire_time.ToSeconds() > time.time() + 86_400 for each in found)


async def test_a_session_that_nobody_used_in_time_is_listed_no_more(auth: Any) -> None:
    unused, used = await auth.login(), await auth.login()
    soon = utc_now() + timedelta(minutes=1)
    with auth.database.transaction() as session:
        session.execute(update(RefreshToken).values(expires_at=soon))
    found = await list_sessions(auth, used.access_token)
    assert {each.idle_expire_time.ToDatetime(UTC) for each in found} == {soon}

    await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=used.refresh_token))
    with auth.database.transaction() as session:
        of_unused = RefreshToken.token_hash == hash_token(unused.refresh_token)
        session.execute(update(RefreshToken).where(of_unused).values(expires_at=utc_now() - timedelta(seconds=1)))
    (found_again,) = await list_sessions(auth, used.access_token)
    assert found_again.current
    assert found_again.idle_expire_time.ToDatetime(UTC) > soon + timedelta(days=1)


async def test_an_ended_session_is_over_on_another_service_within_five_seconds(auth: Any, other: Any) -> None:
    lost, kept = await auth.login(), await auth.login()
    assert await other.accepts(lost.access_token)
    current = next(each for each in await list_sessions(auth, lost.access_token) if each.current)
    await devices(auth, kept.access_token).EndMySession(sessions_pb2.EndMySessionRequest(session_id=current.id))

    assert await other.refuses_within(5, lost.access_token) < 5
    assert await other.accepts(kept.access_token)
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=lost.refresh_token))


async def test_all_other_sessions_end_and_the_one_that_asks_goes_on(auth: Any, other: Any) -> None:
    others, mine = [await auth.login() for _ in range(3)], await auth.login()
    request = sessions_pb2.EndMyOtherSessionsRequest()
    reply = await devices(auth, mine.access_token).EndMyOtherSessions(request)

    assert reply.ended == 3
    for pair in others:
        await other.refuses_within(5, pair.access_token)
    assert [each.current for each in await list_sessions(auth, mine.access_token)] == [True]
    assert (await devices(auth, mine.access_token).EndMyOtherSessions(request)).ended == 0


async def test_an_administrator_ends_all_sessions_of_a_user(auth: Any, other: Any) -> None:
    mia = await auth.create_user("mia", roles=["viewer"])
    lost, admin = await auth.login("mia", "a quiet green lamp"), await auth.login()
    request = sessions_pb2.EndUserSessionsRequest(user_id=mia.id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await devices(auth, lost.access_token).EndUserSessions(request)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED

    assert (await devices(auth, admin.access_token).EndUserSessions(request)).ended == 1
    assert await other.refuses_within(5, lost.access_token) < 5
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=lost.refresh_token))
    assert (await auth.login("mia", "a quiet green lamp")).access_token


async def test_anothers_session_is_not_there(auth: Any) -> None:
    await auth.create_user("mia", roles=["viewer"])
    mia, admin = await auth.login("mia", "a quiet green lamp"), await auth.login()
    foreign = (await list_sessions(auth, admin.access_token))[0].id
    answers = []
    for session_id in (foreign, str(uuid.uuid4())):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await devices(auth, mia.access_token).EndMySession(sessions_pb2.EndMySessionRequest(session_id=session_id))
        answers.append((refused.value.code(), (refused.value.details() or "").replace(session_id, "")))

    assert answers[0] == answers[1]
    assert answers[0][0] is grpc.StatusCode.NOT_FOUND
    assert len(await list_sessions(auth, admin.access_token)) == 2


async def test_logout_takes_the_access_token_along(auth: Any, other: Any) -> None:
    pair = await auth.login()
    assert await other.accepts(pair.access_token)
    await auth.sign_in().Logout(service_pb2.LogoutRequest(refresh_token=pair.refresh_token))

    await other.refuses_within(5, pair.access_token)


async def test_a_changed_password_ends_tokens_and_one_from_right_afterwards_is_good(auth: Any, other: Any) -> None:
    before = await auth.login()
    assert await other.accepts(before.access_token)
    request = service_pb2.ChangePasswordRequest(
        current_password="correct horse battery", new_password="an orange bicycle"
    )
    await auth.users(before.access_token).ChangePassword(request)
    after = await auth.login(password="an orange bicycle")

    await other.refuses_within(5, before.access_token)
    assert await other.accepts(after.access_token)


async def test_a_disabled_user_is_out_everywhere_within_five_seconds(auth: Any, other: Any) -> None:
    user = await auth.create_user("mia", roles=["viewer"])
    pair = await auth.login("mia", "a quiet green lamp")
    assert await other.accepts(pair.access_token)
    await _update(auth, resources_pb2.User(id=user.id, disabled=True), "disabled")

    await other.refuses_within(5, pair.access_token)


async def test_changed_roles_need_a_refresh_and_end_no_session(auth: Any, other: Any) -> None:
    user = await auth.create_user("mia", roles=["viewer"])
    pair = await auth.login("mia", "a quiet green lamp")
    assert await other.accepts(pair.access_token)
    await _update(auth, resources_pb2.User(id=user.id, roles=["tester"]), "roles")
    renewed = await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=pair.refresh_token))

    await other.refuses_within(5, pair.access_token)
    assert await other.accepts(renewed.access_token)


async def test_what_is_known_stays_in_force_while_auth_is_away(auth: Any, other: Any) -> None:
    pair = await auth.login()
    assert await other.accepts(pair.access_token)
    await auth.sign_in().Logout(service_pb2.LogoutRequest(refresh_token=pair.refresh_token))
    await other.refuses_within(5, pair.access_token)
    await auth.running.stop(grace=0)

    assert not await other.accepts(pair.access_token)


async def test_only_services_learn_what_was_taken_back(auth: Any) -> None:
    await auth.create_user("mia", roles=["viewer"])
    token = (await auth.login("mia", "a quiet green lamp")).access_token
    stub = sessions_pb2_grpc.RevocationServiceStub(auth.channel(token))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListRevocations(sessions_pb2.ListRevocationsRequest())

    assert from_rpc_error(refused.value).reason == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0",
            "Edge on Windows",
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iOS"),
        ("curl/8.5.0", "curl"),
        ("espalier/0.1.0 (Linux)", "espalier command line on Linux"),
        ("espalier/0.1.0 (macOS)", "espalier command line on macOS"),
        ("", ""),
    ],
)
def test_a_user_agent_is_said_in_words(agent: str, device: str) -> None:
    assert device_of(agent) == device


async def _update(auth: Any, user: resources_pb2.User, *paths: str) -> None:
    request = service_pb2.UpdateUserRequest(user=user)
    request.update_mask.paths.extend(paths)
    await (await auth.admin()).UpdateUser(request)
