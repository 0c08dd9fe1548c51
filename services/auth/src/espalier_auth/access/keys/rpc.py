"""The edge of API keys: proto in, use case, proto out. Commits here."""

from datetime import UTC, datetime

from google.protobuf.empty_pb2 import Empty

from espalier.auth.v1 import access_pb2, access_pb2_grpc
from espalier_auth.access.keys.service import ApiKeys
from espalier_auth.access.models import ApiKey
from espalier_auth.caller import current_person
from espalier_auth.tokens import AccessTokens
from espalier_common.api_keys import KEEP_SECONDS, Exchange
from espalier_common.db import Database, utc_now
from espalier_common.pagination import Paginator
from espalier_common.rpc.timestamps import timestamp


class ApiKeyRpc(access_pb2_grpc.ApiKeyServiceServicer):
    """One's own keys, and their exchange."""

    def __init__(self, database: Database, *, keys: ApiKeys, exchange: Exchange, paginator: Paginator) -> None:
        self._database = database
        self._keys = keys
        self._exchange = exchange
        self._paginator = paginator

    def CreateApiKey(self, request: access_pb2.CreateApiKeyRequest, context: object) -> access_pb2.ApiKey:
        wanted = request.api_key
        with self._database.transaction() as session:
            made = self._keys.create(
                session,
                name=wanted.name,
                permissions=list(wanted.permissions),
                expires_at=wanted.expire_time.ToDatetime(UTC) if wanted.HasField("expire_time") else None,
                by=current_person(),
            )
            return _to_key(made.key, text=made.text)

    def ListApiKeys(self, request: access_pb2.ListApiKeysRequest, context: object) -> access_pb2.ListApiKeysResponse:
        page = self._paginator.read(request)
        with self._database.reading() as session:
            found = self._keys.list(session, page, of=current_person())
        return access_pb2.ListApiKeysResponse(
            api_keys=[_to_key(key) for key in found.items], next_page_token=found.next_page_token
        )

    def DeleteApiKey(self, request: access_pb2.DeleteApiKeyRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._keys.delete(session, request.api_key_id, by=current_person())
        return Empty()

    def ExchangeApiKey(self, request: access_pb2.ExchangeApiKeyRequest, context: object) -> access_pb2.ApiKeyToken:
        token, keep_seconds = self._exchange(request.key)
        return access_pb2.ApiKeyToken(access_token=token, keep_seconds=int(keep_seconds))


def exchange_here(database: Database, *, keys: ApiKeys, tokens: AccessTokens) -> Exchange:
    """The exchange itself, for auth's own calls and for those of the services."""

    def exchange(text: str) -> tuple[str, float]:
        with database.transaction() as session:
            found = keys.use(session, text)
        token = tokens.for_key(
            found.owner, found.rights, key_id=found.key_id, issued_at=found.read_at, until=found.expires_at
        )
        return token.text, KEEP_SECONDS if found.expires_at is None else min(
            KEEP_SECONDS, _seconds_until(found.expires_at)
        )

    return exchange


def _seconds_until(moment: datetime) -> float:
    """A key that is about to expire is not kept beyond that, and not for whole seconds of the contract either."""
    return max(0.0, (moment - utc_now()).total_seconds())


def _to_key(key: ApiKey, *, text: str = "") -> access_pb2.ApiKey:
    return access_pb2.ApiKey(
        id=key.id,
        name=key.name,
        permissions=key.permissions,
        expire_time=timestamp(key.expires_at),
        key=text,
        last_four=key.last_four,
        create_time=timestamp(key.created_at),
        last_used_time=timestamp(key.last_used_at),
    )
