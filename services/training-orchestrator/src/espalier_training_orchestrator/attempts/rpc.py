"""RunnerService: what the runner of an attempt says and hears. The attempt's own token is all that it needs."""

from espalier.training_orchestrator.v1 import telemetry_pb2, telemetry_pb2_grpc
from espalier_common.db import Database
from espalier_training_orchestrator.attempts.service import Attempts, Claim
from espalier_training_orchestrator.runs.messages import step_of
from espalier_training_orchestrator.wire import enum_value


class RunnerRpc(telemetry_pb2_grpc.RunnerServiceServicer):
    """The servicer of RunnerService."""

    def __init__(self, database: Database, attempts: Attempts, *, heartbeat_seconds: float) -> None:
        self._database = database
        self._attempts = attempts
        self._heartbeat_seconds = heartbeat_seconds

    def RegisterAttempt(
        self, request: telemetry_pb2.RegisterAttemptRequest, context: object
    ) -> telemetry_pb2.RegisterAttemptResponse:
        claim = Claim(run_id=request.run_id, number=request.attempt, token=request.attempt_token)
        with self._database.transaction() as session:
            fence = self._attempts.register(session, claim, host=request.host, pid=request.pid)
        return telemetry_pb2.RegisterAttemptResponse(fence=fence, heartbeat_seconds=self._heartbeat_seconds)

    def Heartbeat(self, request: telemetry_pb2.HeartbeatRequest, context: object) -> telemetry_pb2.HeartbeatResponse:
        claim = Claim(run_id=request.run_id, number=request.attempt, token=request.attempt_token)
        with self._database.transaction() as session:
            command = self._attempts.heartbeat(
                session,
                claim,
                fence=request.fence,
                step=step_of(request.progress) if request.HasField("progress") else None,
                has_new_checkpoints=bool(request.checkpoints),
            )
        return telemetry_pb2.HeartbeatResponse(
            command=enum_value(telemetry_pb2.RunnerCommand, "RUNNER_COMMAND", command)
        )
