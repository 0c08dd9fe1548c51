"""Another way into an account is opened, or closed, only soon after signing in to it."""

from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import update

from espalier.auth.v1 import oidc_pb2
from espalier_auth.models import LoginSession
from espalier_auth.service import RECENT_SIGN_IN
from espalier_common.db import utc_now
from espalier_common.rpc.status import from_rpc_error

from .provider_process import ADA, StartOidc

pytestmark = pytest.mark.slow

PASSWORD = "a quiet green lamp"


async def test_an_old_session_links_and_unlinks_no_provider_and_a_new_one_takes_the_same_answer(
    start_oidc: StartOidc,
) -> None:
    relying = await start_oidc()
    await relying.auth.create_user("ada", roles=["viewer"], password=PASSWORD)
    relying.provider.put("sub-31", **ADA)
    pair = await relying.auth.login("ada", PASSWORD)
    link = oidc_pb2.LinkIdentityRequest(**await relying.answer("sub-31"))
    _let_pass(relying.auth)

    assert await _refusal(relying.stub(pair.access_token).LinkIdentity(link)) == "SIGN_IN_AGAIN"
    pair = await relying.auth.login("ada", PASSWORD)
    assert (await relying.stub(pair.access_token).LinkIdentity(link)).provider == "corporate"

    _let_pass(relying.auth)
    unlink = oidc_pb2.UnlinkIdentityRequest(provider="corporate")
    assert await _refusal(relying.stub(pair.access_token).UnlinkIdentity(unlink)) == "SIGN_IN_AGAIN"
    stub = relying.stub((await relying.auth.login("ada", PASSWORD)).access_token)
    assert len((await stub.ListIdentities(oidc_pb2.ListIdentitiesRequest())).identities) == 1
    await stub.UnlinkIdentity(unlink)


def _let_pass(auth: Any) -> None:
    with auth.database.transaction() as session:
        session.execute(update(LoginSession).values(created_at=utc_now() - RECENT_SIGN_IN - timedelta(seconds=1)))


async def _refusal(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    reason: str = from_rpc_error(refused.value).reason
    return reason
