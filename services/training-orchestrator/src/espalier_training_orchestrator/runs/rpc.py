"""RunService: proto in, use case, proto out. One call is one transaction, or only reads."""

from collections.abc import AsyncIterator

from espalier.training_orchestrator.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from espalier_common.db import Database
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_training_orchestrator.runs import messages, repository
from espalier_training_orchestrator.runs.models import StopMode
from espalier_training_orchestrator.runs.service import Runs
from espalier_training_orchestrator.runs.streams import Streams, log_to_proto
from espalier_training_orchestrator.telemetry import repository as telemetry
from espalier_training_orchestrator.telemetry.logs import read_log, read_log_tail

DEFAULT_METRICS_PAGE = 1000


class RunsRpc(run_service_pb2_grpc.RunServiceServicer):
    """The servicer of RunService."""

    def __init__(self, database: Database, *, runs: Runs, streams: Streams, paginator: Paginator) -> None:
        self._database = database
        self._runs = runs
        self._streams = streams
        self._paginator = paginator

    def CreateRun(self, request: run_service_pb2.CreateRunRequest, context: object) -> run_pb2.Run:
        with self._database.transaction() as session:
            run = self._runs.create(
                session,
                current_principal(),
                name=request.run.name,
                document=messages.spec_document(request.run.spec),
                request_id=request.request_id,
            )
            return messages.run_to_proto(run)

    def PlanRun(self, request: run_service_pb2.PlanRunRequest, context: object) -> run_service_pb2.RunPlan:
        with self._database.transaction() as session:
            plan = self._runs.plan(session, current_principal(), messages.spec_document(request.run.spec))
        return run_service_pb2.RunPlan(
            command=plan.launch.command,
            world_size=plan.launch.resources.world_size,
            run_yaml=plan.launch.files["run.yaml"],
            warnings=plan.warnings,
        )

    def GetRun(self, request: run_service_pb2.GetRunRequest, context: object) -> run_pb2.Run:
        with self._database.reading() as session:
            return messages.run_to_proto(self._runs.get(session, current_principal(), request.run_id))

    def ListRuns(self, request: run_service_pb2.ListRunsRequest, context: object) -> run_service_pb2.ListRunsResponse:
        with self._database.reading() as session:
            page = self._runs.list(
                session,
                current_principal(),
                state=messages.state_filter(request.state),
                page=self._paginator.read(request),
            )
            return run_service_pb2.ListRunsResponse(
                runs=map(messages.run_to_proto, page.items), next_page_token=page.next_page_token
            )

    def StopRun(self, request: run_service_pb2.StopRunRequest, context: object) -> run_pb2.Run:
        mode = StopMode.NOW if request.mode == run_pb2.STOP_MODE_NOW else StopMode.SAVE
        with self._database.transaction() as session:
            return messages.run_to_proto(self._runs.stop(session, current_principal(), request.run_id, mode))

    def ResumeRun(self, request: run_service_pb2.ResumeRunRequest, context: object) -> run_pb2.Run:
        with self._database.transaction() as session:
            return messages.run_to_proto(self._runs.resume(session, current_principal(), request.run_id))

    async def WatchRun(
        self, request: run_service_pb2.WatchRunRequest, context: object
    ) -> AsyncIterator[run_service_pb2.WatchRunResponse]:
        async for response in self._streams.run(current_principal(), request.run_id, request.cursor):
            yield response

    def ListAttempts(
        self, request: run_service_pb2.ListAttemptsRequest, context: object
    ) -> run_service_pb2.ListAttemptsResponse:
        with self._database.reading() as session:
            run = self._runs.get(session, current_principal(), request.run_id)
            attempts = repository.list_attempts(session, run.id)
            return run_service_pb2.ListAttemptsResponse(attempts=map(messages.attempt_to_proto, attempts))

    def ListCheckpoints(
        self, request: run_service_pb2.ListCheckpointsRequest, context: object
    ) -> run_service_pb2.ListCheckpointsResponse:
        with self._database.reading() as session:
            run = self._runs.get(session, current_principal(), request.run_id)
            checkpoints = repository.list_checkpoints(session, run.id)
            return run_service_pb2.ListCheckpointsResponse(checkpoints=map(messages.checkpoint_to_proto, checkpoints))

    def GetRunModel(self, request: run_service_pb2.GetRunModelRequest, context: object) -> run_service_pb2.RunModel:
        with self._database.reading() as session:
            model = self._runs.model(session, current_principal(), request.run_id)
        spec = model.run.spec
        return run_service_pb2.RunModel(
            run_id=model.run.id,
            uri=model.uri,
            adapter_uri=model.adapter_uri,
            manifest_sha256=model.manifest_sha256,
            step=model.step,
            parameters=model.parameters,
            dataset_version_ids=spec.dataset_version_ids,
            base_run_id=spec.base_model.run_id,
            template=spec.template_name,
        )

    def ListRunEvents(
        self, request: run_service_pb2.ListRunEventsRequest, context: object
    ) -> run_service_pb2.ListRunEventsResponse:
        with self._database.reading() as session:
            run = self._runs.get(session, current_principal(), request.run_id)
            events = repository.list_events(session, run.id)
            return run_service_pb2.ListRunEventsResponse(events=map(messages.event_to_proto, events))

    def ListMetrics(
        self, request: run_service_pb2.ListMetricsRequest, context: object
    ) -> run_service_pb2.ListMetricsResponse:
        page = self._paginator.read(request)
        # A curve has larger pages than other lists; the field's own bound is the limit.
        size = request.page_size or DEFAULT_METRICS_PAGE
        after = int(page.after[0]) if page.after else -1
        with self._database.reading() as session:
            run = self._runs.get(session, current_principal(), request.run_id)
            rows = telemetry.points_by_step(session, run.id, after, steps=size + 1)
            points = messages.points_by_step(rows)
        token = page.token([points[size - 1].step]) if len(points) > size else ""
        return run_service_pb2.ListMetricsResponse(points=points[:size], next_page_token=token)

    def ReadLogs(self, request: run_service_pb2.ReadLogsRequest, context: object) -> run_service_pb2.LogChunk:
        offset = int(request.offset)
        with self._database.reading() as session:
            run = self._runs.get(session, current_principal(), request.run_id)
            attempt = self._runs.attempt(session, run, request.attempt)
            if request.tail:
                piece = read_log_tail(session, attempt, rank=request.rank, back=offset, limit=request.limit)
            else:
                piece = read_log(session, attempt, rank=request.rank, offset=offset, limit=request.limit)
            return log_to_proto(piece, attempt=attempt.number, rank=request.rank)

    async def WatchLogs(
        self, request: run_service_pb2.WatchLogsRequest, context: object
    ) -> AsyncIterator[run_service_pb2.LogChunk]:
        async for chunk in self._streams.log(current_principal(), request):
            yield chunk
