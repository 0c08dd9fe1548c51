"""Whoever finds a session left open does not get the account: its e-mail address takes a recent sign-in to change."""

from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import update

from espalier.auth.v1 import resources_pb2, service_pb2
from espalier_auth.models import LoginSession
from espalier_auth.service import RECENT_SIGN_IN
from espalier_common.db import utc_now
from espalier_common.rpc.status import from_rpc_error


async def test_the_address_of_an_account_changes_only_soon_after_signing_in(auth: Any) -> None:
    pair = await auth.login()
    changed = await _change(auth, pair.access_token, email="ada@example.org", display_name="Ada")
    assert changed.email == "ada@example.org"

    with auth.database.transaction() as session:
        session.execute(update(LoginSession).values(created_at=utc_now() - RECENT_SIGN_IN - timedelta(seconds=1)))
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


async def _change(auth: Any, token: str, **fields: str) -> resources_pb2.User:
    request = service_pb2.UpdateMeRequest(user=resources_pb2.User(**fields))
    request.update_mask.paths.extend(fields)
    user: resources_pb2.User = await auth.users(token).UpdateMe(request)
    return user
