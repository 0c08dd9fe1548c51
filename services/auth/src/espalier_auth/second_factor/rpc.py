"""The edge of second factors: proto in, use case, proto out. Commits here."""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from sqlalchemy.orm import Session

from espalier.auth.v1 import second_factor_pb2, second_factor_pb2_grpc
from espalier_auth.caller import current_person
from espalier_auth.second_factor.errors import CodeRefused, WrongCode
from espalier_auth.second_factor.service import SecondFactors
from espalier_auth.throttle.gate import PasswordGate
from espalier_common.db import Database
from espalier_common.identity import Principal, current_principal
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp

_Result = TypeVar("_Result")


class SecondFactorRpc(second_factor_pb2_grpc.SecondFactorServiceServicer):
    """One's own second factor, and the end of another's."""

    def __init__(self, database: Database, *, second_factors: SecondFactors, gate: PasswordGate) -> None:
        self._database = database
        self._second_factors = second_factors
        self._gate = gate

    def GetMySecondFactor(
        self, request: second_factor_pb2.GetMySecondFactorRequest, context: object
    ) -> second_factor_pb2.SecondFactor:
        with self._database.transaction() as session:
            state = self._second_factors.state(session, current_person())
        return second_factor_pb2.SecondFactor(
            enrolled=state.since is not None,
            enrol_time=timestamp(state.since),
            recovery_codes_left=state.recovery_codes_left,
            required=state.required,
        )

    def BeginMySecondFactor(
        self, request: second_factor_pb2.BeginMySecondFactorRequest, context: object
    ) -> second_factor_pb2.SecondFactorSecret:
        with self._database.transaction() as session:
            secret = self._second_factors.begin(session, current_person())
        return second_factor_pb2.SecondFactorSecret(secret=secret.text, otpauth_uri=secret.uri)

    def ConfirmMySecondFactor(
        self, request: second_factor_pb2.ConfirmMySecondFactorRequest, context: object
    ) -> second_factor_pb2.RecoveryCodes:
        with self._database.transaction() as session:
            shown = self._second_factors.confirm(session, request.code, owner=current_person())
        return second_factor_pb2.RecoveryCodes(recovery_codes=shown)

    async def CreateMyRecoveryCodes(
        self, request: second_factor_pb2.CreateMyRecoveryCodesRequest, context: object
    ) -> second_factor_pb2.RecoveryCodes:
        owner = current_person()
        shown = await self._with_code(
            owner, lambda session: self._second_factors.renew_recovery_codes(session, request.code, owner=owner)
        )
        return second_factor_pb2.RecoveryCodes(recovery_codes=shown)

    async def RemoveMySecondFactor(
        self, request: second_factor_pb2.RemoveMySecondFactorRequest, context: object
    ) -> Empty:
        owner = current_person()

        def remove(session: Session) -> Empty:
            self._second_factors.remove(session, request.code, owner=owner)
            return Empty()

        return await self._with_code(owner, remove)

    def RemoveUserSecondFactor(
        self, request: second_factor_pb2.RemoveUserSecondFactorRequest, context: object
    ) -> Empty:
        with self._database.transaction() as session:
            self._second_factors.remove_of(session, request.user_id, by=current_principal())
        return Empty()

    async def _with_code(self, owner: Principal, then: Callable[[Session], _Result]) -> _Result:
        try:
            return await self._gate.take_code(owner.subject, session_id=owner.session or owner.subject, then=then)
        except WrongCode as wrong:
            raise CodeRefused(wrong.fault) from wrong


def servicers(rpc: SecondFactorRpc) -> list[ServicerEntry]:
    """The one, for the server."""
    descriptor = second_factor_pb2.DESCRIPTOR.services_by_name["SecondFactorService"]
    return [(second_factor_pb2_grpc.add_SecondFactorServiceServicer_to_server, rpc, descriptor)]
