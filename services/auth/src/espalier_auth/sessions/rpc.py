"""The edge of sessions and revocations: proto in, use case, proto out. Commits here."""

from datetime import datetime

from google.protobuf.empty_pb2 import Empty

from espalier.auth.v1 import sessions_pb2, sessions_pb2_grpc
from espalier_auth.caller import current_person
from espalier_auth.models import LoginSession
from espalier_auth.service import Users
from espalier_auth.sessions import repository
from espalier_auth.sessions.agents import device_of
from espalier_auth.sessions.service import Devices
from espalier_common.db import Database, utc_now
from espalier_common.identity import Principal, current_principal
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp


class SessionRpc(sessions_pb2_grpc.SessionServiceServicer):
    """One's own sessions, and the end of another's."""

    def __init__(self, database: Database, *, devices: Devices, users: Users) -> None:
        self._database = database
        self._devices = devices
        self._users = users

    def ListMySessions(
        self, request: sessions_pb2.ListMySessionsRequest, context: object
    ) -> sessions_pb2.ListMySessionsResponse:
        owner = current_person()
        with self._database.reading() as session:
            found = self._devices.list(session, owner)
        return sessions_pb2.ListMySessionsResponse(sessions=[_to_session(*each, owner=owner) for each in found])

    def EndMySession(self, request: sessions_pb2.EndMySessionRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._devices.end(session, request.session_id, owner=current_person())
        return Empty()

    def EndMyOtherSessions(
        self, request: sessions_pb2.EndMyOtherSessionsRequest, context: object
    ) -> sessions_pb2.EndMyOtherSessionsResponse:
        with self._database.transaction() as session:
            return sessions_pb2.EndMyOtherSessionsResponse(ended=self._devices.end_others(session, current_person()))

    def EndUserSessions(
        self, request: sessions_pb2.EndUserSessionsRequest, context: object
    ) -> sessions_pb2.EndUserSessionsResponse:
        with self._database.transaction() as session:
            ended = self._users.end_sessions(session, request.user_id, by=current_principal())
        return sessions_pb2.EndUserSessionsResponse(ended=ended)


class RevocationRpc(sessions_pb2_grpc.RevocationServiceServicer):
    """What the other services ask every other second."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ListRevocations(
        self, request: sessions_pb2.ListRevocationsRequest, context: object
    ) -> sessions_pb2.ListRevocationsResponse:
        with self._database.reading() as session:
            found = repository.list_revocations(session, utc_now())
        return sessions_pb2.ListRevocationsResponse(
            revocations=[
                sessions_pb2.Revocation(subject=item.subject, not_before=timestamp(item.not_before)) for item in found
            ]
        )


def servicers(database: Database, users: Users) -> list[ServicerEntry]:
    """Both, for the server."""
    services = sessions_pb2.DESCRIPTOR.services_by_name
    sessions, revocations = SessionRpc(database, devices=Devices(), users=users), RevocationRpc(database)
    return [
        (sessions_pb2_grpc.add_SessionServiceServicer_to_server, sessions, services["SessionService"]),
        (sessions_pb2_grpc.add_RevocationServiceServicer_to_server, revocations, services["RevocationService"]),
    ]


def _to_session(login: LoginSession, unused_until: datetime, *, owner: Principal) -> sessions_pb2.UserSession:
    return sessions_pb2.UserSession(
        id=login.id,
        device=device_of(login.agent),
        address=login.address,
        create_time=timestamp(login.created_at),
        last_used_time=timestamp(login.last_used_at or login.created_at),
        current=login.id == owner.session,
        expire_time=timestamp(login.expires_at),
        idle_expire_time=timestamp(unused_until),
    )
