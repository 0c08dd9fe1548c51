"""The edge of signing in: proto in, use case, proto out. Commits here.

The check of a password, and what follows from it, runs in the pool of `passwords.py`, and while it computes it holds
neither a thread that answers others nor a database connection.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from google.protobuf.empty_pb2 import Empty
from sqlalchemy.orm import Session

from espalier.auth.v1 import resources_pb2, service_pb2, service_pb2_grpc
from espalier_auth.errors import InitialPasswordOver, InvalidRefreshToken
from espalier_auth.models import Person, User
from espalier_auth.passwords import Passwords
from espalier_auth.second_factor.errors import SecondFactorRequired, SecondFactorWrong, WrongCode
from espalier_auth.second_factor.service import SecondFactors
from espalier_auth.service import Continuation, Sessions
from espalier_auth.throttle.gate import Passed, PasswordGate
from espalier_auth.tokens import AccessTokens
from espalier_common.audit.recording import note_done
from espalier_common.db import Database, utc_now
from espalier_common.rpc.client import current_client
from espalier_common.rpc.server import ServicerEntry


class AuthRpc(service_pb2_grpc.AuthServiceServicer):
    """Signs in, and vouches for who somebody is."""

    def __init__(
        self,
        database: Database,
        *,
        sessions: Sessions,
        passwords: Passwords,
        gate: PasswordGate,
        tokens: AccessTokens,
        second_factors: SecondFactors,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._passwords = passwords
        self._gate = gate
        self._tokens = tokens
        self._second_factors = second_factors

    async def Login(self, request: service_pb2.LoginRequest, context: object) -> resources_pb2.TokenPair:
        return await self._gate.sign_in(
            username=request.username.lower(),
            password=request.password,
            address=current_client().address,
            device_token=request.device_token,
            then=lambda passed: self._begin_session(passed, request),
        )

    def Refresh(self, request: service_pb2.RefreshRequest, context: object) -> resources_pb2.TokenPair:
        self._tokens.prepare()
        with self._database.transaction() as session:
            continuation = self._sessions.renew(session, request.refresh_token, client=current_client())
            if continuation is not None:
                note_done(session)
        # Raised after the commit: the end of a session whose token came twice must stay.
        if continuation is None:
            raise InvalidRefreshToken
        return self._to_pair(continuation)

    def Logout(self, request: service_pb2.LogoutRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._sessions.end(session, request.refresh_token)
        return Empty()

    def GetJwks(self, request: service_pb2.GetJwksRequest, context: object) -> service_pb2.Jwks:
        return service_pb2.Jwks(keys=[resources_pb2.Jwk(**key) for key in self._tokens.public_keys()])

    def IssueServiceToken(
        self, request: service_pb2.IssueServiceTokenRequest, context: object
    ) -> service_pb2.ServiceToken:
        token = self._tokens.for_service(request.service, request.secret)
        return service_pb2.ServiceToken(access_token=token.text, expires_in=token.expires_in)

    async def begin_session(self, user: User, note: Callable[[Session, str], None]) -> resources_pb2.TokenPair:
        """Begins a session of a user, as he was read when somebody else vouched for him; `note` is given its id.

        Raises InvalidCredentials, and what `note` raises.
        """
        return await asyncio.to_thread(self._begin_vouched, user, note)

    def _begin_vouched(self, user: User, note: Callable[[Session, str], None]) -> resources_pb2.TokenPair:
        self._tokens.prepare()
        with self._database.transaction() as session:
            continuation = self._sessions.begin(session, user, client=current_client())
            note(session, continuation.session_id)
        return self._to_pair(continuation)

    def _begin_session(self, passed: Passed, request: service_pb2.LoginRequest) -> resources_pb2.TokenPair:
        if passed.user.has_lapsed(utc_now()):
            self._gate.settle(passed)
            raise InitialPasswordOver
        outdated = self._passwords.is_outdated(passed.user.password_hash)
        renewed_hash = self._passwords.hash_now(request.password) if outdated else ""
        self._tokens.prepare()

        def begin(session: Session) -> Continuation:
            continuation = self._sessions.begin(
                session,
                passed.user,
                proof=partial(self._prove, code=request.code),
                renewed_hash=renewed_hash,
                client=current_client(),
            )
            note_done(session)
            return continuation

        try:
            continuation = self._gate.follow(passed, begin)
        except WrongCode as wrong:
            raise SecondFactorWrong(wrong.fault) from wrong
        pair = self._to_pair(continuation)
        pair.device_token = self._gate.device_tokens.issue(passed.user.id, device=passed.device)
        return pair

    def _prove(self, session: Session, user: Person, *, code: str) -> None:
        """Asks for the second factor of who has one, whom nobody changes meanwhile."""
        if not user.has_second_factor:
            return
        if not code.strip():
            raise SecondFactorRequired
        self._second_factors.use(session, user.id, code)

    def _to_pair(self, continuation: Continuation) -> resources_pb2.TokenPair:
        user = continuation.user
        token = self._tokens.for_user(
            user,
            continuation.access,
            session_id=continuation.session_id,
            issued_at=continuation.issued_at,
            must_enrol=continuation.must_enrol,
        )
        return resources_pb2.TokenPair(
            access_token=token.text,
            refresh_token=continuation.refresh_token,
            token_type="Bearer",  # noqa: S106  (RFC 6750's name)
            expires_in=token.expires_in,
            password_change_required=user.password_change_required,
            second_factor_enrolment_required=continuation.must_enrol,
        )


def servicers(rpc: AuthRpc) -> list[ServicerEntry]:
    """The one, for the server."""
    descriptor = service_pb2.DESCRIPTOR.services_by_name["AuthService"]
    return [(service_pb2_grpc.add_AuthServiceServicer_to_server, rpc, descriptor)]
