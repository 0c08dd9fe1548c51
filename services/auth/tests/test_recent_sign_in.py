"""Whoever finds a session left open does not get the account: what decides over it takes a recent sign-in."""

from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import update

from espalier.auth.v1 import resources_pb2, service_pb2, sessions_pb2, sessions_pb2_grpc
from espalier_auth.models import LoginSession
from espalier_auth.service import RECENT_SIGN_IN
from espalier_common.db import utc_now
from espalier_common.rpc.status import from_rpc_error


async def test_the_address_of_an_account_changes_only_soon_after_signing_in(auth: Any) -> None:
    pair = await auth.login()
    changed = await _change(auth, pair.access_token, email="ada@example.org", display_name="Ada")
    assert changed.email == "ada@example.org"

    _let_pass(auth)
    # A refresh is no sign-in.
    pair = await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=pair.refresh_token))
    for address in ("thief@example.org", ""):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _change(auth, pair.access_token, email=address, display_name="Somebody")
        error = from_rpc_error(refused.value)
        assert (error.code, error.reason) == ("PERMISSION_DENIED", "SIGN_IN_AGAIN")
        assert error.message == "Sign in again to change your e-mail address: you did so too long ago."

    # What decides nothing over the way in changes as ever, beside the same address too; after a new sign-in all does.
    kept = await _change(auth, pair.access_token, email="Ada@Example.org", display_name="Ada Lovelace")
    assert (kept.email, kept.display_name) == ("ada@example.org", "Ada Lovelace")
    again = await auth.login()
    assert (await _change(auth, again.access_token, email="ada@lovelace.org")).email == "ada@lovelace.org"


async def test_others_of_ones_sessions_end_only_soon_after_signing_in(auth: Any) -> None:
    other, mine = await auth.login(), await auth.login()
    stub = sessions_pb2_grpc.SessionServiceStub(auth.channel(mine.access_token))
    listed = (await stub.ListMySessions(sessions_pb2.ListMySessionsRequest())).sessions
    ids = {each.current: each.id for each in listed}
    _let_pass(auth)

    for call in (
        stub.EndMySession(sessions_pb2.EndMySessionRequest(session_id=ids[False])),
        stub.EndMyOtherSessions(sessions_pb2.EndMyOtherSessionsRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert from_rpc_error(refused.value).reason == "SIGN_IN_AGAIN"
    assert (await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=other.refresh_token))).access_token

    # What is nobody's is not there, and one's own is signed out of as ever.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.EndMySession(sessions_pb2.EndMySessionRequest(session_id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002"))
    assert from_rpc_error(refused.value).code == "NOT_FOUND"
    await stub.EndMySession(sessions_pb2.EndMySessionRequest(session_id=ids[True]))

    again = await auth.login()
    fresh = sessions_pb2_grpc.SessionServiceStub(auth.channel(again.access_token))
    assert (await fresh.EndMyOtherSessions(sessions_pb2.EndMyOtherSessionsRequest())).ended == 1


def _let_pass(auth: Any) -> None:
    """All sessions began too long ago."""
    with auth.database.transaction() as session:
        session.execute(update(LoginSession).values(created_at=utc_now() - RECENT_SIGN_IN - timedelta(seconds=1)))


async def _change(auth: Any, token: str, **fields: str) -> resources_pb2.User:
    request = service_pb2.UpdateMeRequest(user=resources_pb2.User(**fields))
    request.update_mask.paths.extend(fields)
    user: resources_pb2.User = await auth.users(token).UpdateMe(request)
    return user
