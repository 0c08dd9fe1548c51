"""The edge of single sign-on: proto in, use case, proto out. Commits here.

Handlers that ask a provider are coroutines: while they wait they hold neither a thread nor a database connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from google.protobuf.empty_pb2 import Empty
from sqlalchemy.orm import Session

from espalier.auth.v1 import oidc_pb2, oidc_pb2_grpc, resources_pb2
from espalier_auth.caller import current_person
from espalier_auth.models import User
from espalier_auth.oidc.errors import IncompleteAnswer, LoginExpired, ProviderNotFound, ProviderRefused
from espalier_auth.oidc.login_state import LoginStates, PendingLogin
from espalier_auth.oidc.logout_token import Logout
from espalier_auth.oidc.models import ExternalIdentity
from espalier_auth.oidc.provider import Provider
from espalier_auth.oidc.provider_sessions import end_sessions, note_session
from espalier_auth.oidc.service import SingleSignOn
from espalier_auth.oidc.signed_token import Claims
from espalier_auth.service import require_recent_sign_in
from espalier_common.db import Database
from espalier_common.identity import Principal
from espalier_common.rpc.server import ServicerEntry

BeginSession = Callable[[User, Callable[[Session, str], None]], Awaitable[resources_pb2.TokenPair]]
"""Begins a session of a user whom somebody else has vouched for; what is noted of it goes into its transaction."""

_Answer = oidc_pb2.FinishOidcLoginRequest | oidc_pb2.LinkIdentityRequest


class OidcRpc(oidc_pb2_grpc.OidcServiceServicer):
    """Signs in people whom an identity provider vouches for."""

    def __init__(
        self,
        database: Database,
        *,
        providers: Iterable[Provider],
        states: LoginStates,
        single_sign_on: SingleSignOn,
        begin_session: BeginSession,
    ) -> None:
        self._database = database
        self._providers = {provider.settings.name: provider for provider in providers}
        self._states = states
        self._single_sign_on = single_sign_on
        self._begin_session = begin_session

    def ListIdentityProviders(
        self, request: oidc_pb2.ListIdentityProvidersRequest, context: object
    ) -> oidc_pb2.ListIdentityProvidersResponse:
        providers = [
            oidc_pb2.IdentityProvider(name=name, display_name=provider.settings.title)
            for name, provider in self._providers.items()
        ]
        return oidc_pb2.ListIdentityProvidersResponse(providers=providers)

    async def StartOidcLogin(self, request: oidc_pb2.StartOidcLoginRequest, context: object) -> oidc_pb2.OidcLogin:
        provider = self._find(request.provider)
        pending, binding = self._states.begin(request.provider)
        return oidc_pb2.OidcLogin(authorization_url=await provider.authorization_url(pending), binding=binding)

    async def FinishOidcLogin(
        self, request: oidc_pb2.FinishOidcLoginRequest, context: object
    ) -> resources_pb2.TokenPair:
        provider = self._find(request.provider)
        claims = await self._identify(provider, request)
        user = await asyncio.to_thread(self._admit, provider, claims, request.separate_account)
        return await self._begin_session(user, partial(self._note_session, provider, claims))

    async def EndProviderSessions(self, request: oidc_pb2.EndProviderSessionsRequest, context: object) -> Empty:
        provider = self._find(request.provider)
        logout = await provider.read_logout(request.logout_token)
        await asyncio.to_thread(self._end_sessions, provider, logout)
        return Empty()

    async def LinkIdentity(self, request: oidc_pb2.LinkIdentityRequest, context: object) -> oidc_pb2.LinkedIdentity:
        principal = current_person()
        provider = self._find(request.provider)
        # First of all: the answer of the provider counts once, and is still good after a new sign-in.
        await asyncio.to_thread(self._require_recent_sign_in, principal, "to link your account")
        claims = await self._identify(provider, request)
        return await asyncio.to_thread(self._link, provider, claims, principal.subject)

    def ListIdentities(
        self, request: oidc_pb2.ListIdentitiesRequest, context: object
    ) -> oidc_pb2.ListIdentitiesResponse:
        with self._database.transaction() as session:
            found = self._single_sign_on.list(session, user_id=current_person().subject)
        return oidc_pb2.ListIdentitiesResponse(identities=[_to_identity(identity) for identity in found])

    def UnlinkIdentity(self, request: oidc_pb2.UnlinkIdentityRequest, context: object) -> Empty:
        principal = current_person()
        with self._database.transaction() as session:
            self._single_sign_on.unlink(session, request.provider, user_id=principal.subject)
            require_recent_sign_in(session, principal, "to unlink your account")
        return Empty()

    async def close(self) -> None:
        """Ends the connections to all providers."""
        for provider in self._providers.values():
            await provider.close()

    def _require_recent_sign_in(self, principal: Principal, what: str) -> None:
        with self._database.transaction() as session:
            require_recent_sign_in(session, principal, what)

    def _find(self, name: str) -> Provider:
        provider = self._providers.get(name)
        if provider is None:
            raise ProviderNotFound(name)
        return provider

    async def _identify(self, provider: Provider, request: _Answer) -> Claims:
        pending = self._states.resume(request.state, provider=request.provider, binding=request.binding)
        if pending is None:
            raise LoginExpired
        # Before anything is asked: whatever comes of it, this answer counts once.
        await asyncio.to_thread(self._finish, pending)
        await provider.check_issuer(request.issuer)
        if request.error:
            raise ProviderRefused(provider.settings.title, request.error, request.error_description)
        if not request.code:
            raise IncompleteAnswer
        return await provider.identify(request.code, pending)

    def _finish(self, pending: PendingLogin) -> None:
        with self._database.transaction() as session:
            self._single_sign_on.finish(session, pending)

    def _end_sessions(self, provider: Provider, logout: Logout) -> None:
        with self._database.transaction() as session:
            end_sessions(session, provider.settings, logout)

    def _note_session(self, provider: Provider, claims: Claims, session: Session, session_id: str) -> None:
        note_session(session, session_id, provider.settings, claims)

    def _admit(self, provider: Provider, claims: Claims, separate: bool) -> User:
        with self._database.transaction() as session:
            return self._single_sign_on.admit(session, provider.settings, claims, separate=separate)

    def _link(self, provider: Provider, claims: Claims, user_id: str) -> oidc_pb2.LinkedIdentity:
        with self._database.transaction() as session:
            identity = self._single_sign_on.link(session, provider.settings, claims, user_id=user_id)
            return _to_identity(identity)


def _to_identity(identity: ExternalIdentity) -> oidc_pb2.LinkedIdentity:
    return oidc_pb2.LinkedIdentity(provider=identity.provider, email=identity.email)


def servicers(rpc: OidcRpc) -> list[ServicerEntry]:
    """The one, for the server."""
    descriptor = oidc_pb2.DESCRIPTOR.services_by_name["OidcService"]
    return [(oidc_pb2_grpc.add_OidcServiceServicer_to_server, rpc, descriptor)]
