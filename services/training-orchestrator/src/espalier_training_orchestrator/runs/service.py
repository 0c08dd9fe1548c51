"""What users do with runs: plan, create, look at, stop and resume them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePath
from typing import Any, NoReturn

from sqlalchemy.orm import Session

from espalier_common.db import new_id, utc_now
from espalier_common.errors import FieldViolation
from espalier_common.identity import Principal
from espalier_common.pagination import Page, PageRequest
from espalier_training_orchestrator import planner
from espalier_training_orchestrator.errors import (
    AttemptNotFound,
    RequestIdReused,
    RunModelMissing,
    RunNotFound,
    RunNotReady,
    RunNotResumable,
    RunNotStoppable,
    RunSpecInvalid,
)
from espalier_training_orchestrator.locks import wait_for_turn
from espalier_training_orchestrator.runs import checkpoints, repository
from espalier_training_orchestrator.runs.facts import Facts
from espalier_training_orchestrator.runs.holds import Holds
from espalier_training_orchestrator.runs.lifecycle import Lifecycle
from espalier_training_orchestrator.runs.models import Attempt, Run, RunState, StopMode
from espalier_training_orchestrator.runs.refusals import Problem, problems, warnings
from espalier_training_orchestrator.runs.spec import BaseModelSource, RunSpec
from espalier_training_orchestrator.runs.survey import Survey
from espalier_training_orchestrator.spec import LaunchSpec

DRY_RUN_ID = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be launched."""

    launch: LaunchSpec
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class FinishedModel:
    """The model of a run that succeeded; addresses are places in the artifact store."""

    run: Run
    uri: str
    adapter_uri: str
    manifest_sha256: str
    step: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class StopLimits:
    """Seconds that a stop may take before it is forced."""

    save: float
    now: float


class Runs:
    """The use cases. Every one sees only what its caller may see."""

    def __init__(
        self,
        *,
        survey: Survey,
        lifecycle: Lifecycle,
        holds: Holds,
        trainer: planner.TrainerSettings,
        stop_limits: StopLimits,
    ) -> None:
        self._survey = survey
        self._holds = holds
        self._lifecycle = lifecycle
        self._trainer = trainer
        self._stop_limits = stop_limits

    def plan(self, session: Session, principal: Principal, document: Mapping[str, Any]) -> Plan:
        """What `create` would launch. Raises RunSpecInvalid or RunNotReady with every reason why it could not."""
        spec = RunSpec.model_validate(document)
        facts = self._checked_facts(session, spec, principal)
        places = self._survey.places
        attempt = planner.AttemptFacts(
            run_id=DRY_RUN_ID,
            number=1,
            directory=str(places.attempt_dir(DRY_RUN_ID, 1)),
            output_dir=str(places.output_dir(DRY_RUN_ID)),
        )
        launch = planner.plan_attempt(spec, facts, attempt, trainer=self._trainer)
        return Plan(launch=launch, warnings=warnings(spec, facts))

    def create(
        self, session: Session, principal: Principal, *, name: str, document: Mapping[str, Any], request_id: str
    ) -> Run:
        """Queues a run. The same request id again gives the run it made.

        Raises RunSpecInvalid or RunNotReady with every reason, RequestIdReused when the id came with something else,
        ResourceExhausted when it is over a limit of the caller.
        """
        if request_id:
            wait_for_turn(session, f"request/{principal.subject}/{request_id}")
            earlier = repository.find_run_of_request(session, principal.subject, request_id)
            if earlier is not None:
                return _same_request(earlier, name, document)
        spec = RunSpec.model_validate(document)
        self._checked_facts(session, spec, principal)
        run = Run(
            id=new_id(),
            owner_id=principal.subject,
            name=name,
            model=_model(session, spec.base_model) or name,
            document=dict(document),
            request_id=request_id or None,
            world_size=spec.resources.world_size,
            device=spec.resources.device_name,
            message="Waiting to be launched.",
            reservation_id=new_id(),
        )
        self._holds.take(run)
        session.add(run)
        session.flush()
        self._lifecycle.created(session, run, actor_id=principal.subject)
        return run

    def get(self, session: Session, principal: Principal, run_id: str, *, lock: bool = False) -> Run:
        """One run. Raises RunNotFound."""
        run = repository.find_run(session, run_id, principal, lock=lock)
        if run is None:
            raise RunNotFound("run", run_id)
        return run

    def list(self, session: Session, principal: Principal, *, state: RunState | None, page: PageRequest) -> Page[Run]:
        """The runs, newest first."""
        return repository.list_runs(session, principal, state=state, page=page)

    def stop(self, session: Session, principal: Principal, run_id: str, mode: StopMode) -> Run:
        """Asks a run to stop; what waits is ended at once. Raises RunNotFound, RunNotStoppable."""
        run = self.get(session, principal, run_id, lock=True)
        if run.state is RunState.QUEUED:
            self._leave_queue(session, run, principal)
        elif run.state in (RunState.STARTING, RunState.RUNNING):
            self._begin_stop(session, run, mode=mode, actor_id=principal.subject)
        elif run.state is RunState.STOPPING:
            self._hurry(session, run, mode=mode, actor_id=principal.subject)
        elif run.state not in (RunState.STOPPED, RunState.CANCELLED):
            raise RunNotStoppable(f"The run has ended already: it is {run.state}.")
        return run

    def resume(self, session: Session, principal: Principal, run_id: str) -> Run:
        """Queues a stopped or failed run again, from its newest checkpoint.

        Raises RunNotFound, RunNotResumable, ResourceExhausted when it is over a limit of the owner.
        """
        run = self.get(session, principal, run_id, lock=True)
        if run.state not in (RunState.STOPPED, RunState.FAILED):
            raise RunNotResumable(f"Only a run that is STOPPED or FAILED can be resumed; this one is {run.state}.")
        if not repository.has_checkpoint(session, run.id):
            raise RunNotResumable(
                "The run has no checkpoint to go on from; create it again, with save_steps or a stop with save."
            )
        run.reservation_id = new_id()
        self._holds.take(run)
        self._lifecycle.move(
            session,
            run,
            RunState.QUEUED,
            reason="RESUME_REQUESTED",
            message="Waiting to be launched again.",
            actor_id=principal.subject,
        )
        return run

    def attempt(self, session: Session, run: Run, number: int) -> Attempt:
        """One attempt, the newest when 0. Raises AttemptNotFound."""
        attempt = repository.find_attempt(session, run.id, number or run.attempt)
        if attempt is None:
            message = None if run.attempt else f"The run has not been launched yet: it is {run.state}."
            raise AttemptNotFound("attempt", str(number or run.attempt), message=message)
        return attempt

    def model(self, session: Session, principal: Principal, run_id: str) -> FinishedModel:
        """The finished model. Raises RunNotFound, RunModelMissing."""
        run = self.get(session, principal, run_id)
        if run.state is not RunState.SUCCEEDED:
            raise RunModelMissing(f"The run is {run.state}; it has a finished model once it is SUCCEEDED.")
        directory = self._survey.places.model_dir(run.id)
        manifest = checkpoints.read_manifest(directory)
        if manifest is None:
            raise RunModelMissing("The model of the run is not in the artifact store any more.")
        has_adapter = (directory.with_name("adapter") / checkpoints.MANIFEST).is_file()
        return FinishedModel(
            run=run,
            uri=f"runs/{run.id}/model",
            adapter_uri=f"runs/{run.id}/adapter" if has_adapter else "",
            manifest_sha256=manifest.sha256,
            step=manifest.step,
            parameters=checkpoints.parameters_of(directory),
        )

    def _checked_facts(self, session: Session, spec: RunSpec, principal: Principal) -> Facts:
        facts = self._survey.facts(session, spec, principal)
        if found := problems(spec, facts):
            _refuse(found)
        return facts

    def _leave_queue(self, session: Session, run: Run, principal: Principal) -> None:
        # A run that has trained before goes back to where it came from: it can still be resumed.
        to, reason, message = (
            (RunState.STOPPED, "STOPPED_BY_USER", "Stopped while it waited to be launched again.")
            if run.attempt
            else (RunState.CANCELLED, "CANCELLED_BY_USER", "Cancelled before it trained.")
        )
        self._lifecycle.move(session, run, to, reason=reason, message=message, actor_id=principal.subject)
        run.resumable = to is RunState.STOPPED and repository.has_checkpoint(session, run.id)

    def _begin_stop(self, session: Session, run: Run, *, mode: StopMode, actor_id: str) -> None:
        message = "Saving a checkpoint, then stopping." if mode is StopMode.SAVE else "Stopping without saving."
        self._lifecycle.move(
            session, run, RunState.STOPPING, reason="STOP_REQUESTED", message=message, actor_id=actor_id
        )
        self.attempt(session, run, run.attempt).state = RunState.STOPPING
        self._set_stop(run, mode)

    def _hurry(self, session: Session, run: Run, *, mode: StopMode, actor_id: str) -> None:
        if mode is StopMode.NOW and run.stop_mode is StopMode.SAVE:
            self._set_stop(run, mode)
            run.message = "Stopping without saving."
            self._lifecycle.note(
                session, run, reason="STOP_NOW_REQUESTED", message="Asked to stop without saving.", actor_id=actor_id
            )

    def _set_stop(self, run: Run, mode: StopMode) -> None:
        seconds = self._stop_limits.save if mode is StopMode.SAVE else self._stop_limits.now
        run.stop_mode, run.stop_deadline = mode, utc_now() + timedelta(seconds=seconds)


def _model(session: Session, base: BaseModelSource) -> str:
    """Name of the model that a run starts from; empty where it starts one from scratch."""
    if base.run_id:
        before = repository.find_run_by_id(session, base.run_id)
        return before.model if before else ""
    return base.hub or PurePath(base.directory).name


def _same_request(run: Run, name: str, document: Mapping[str, Any]) -> Run:
    if run.name != name or run.document != document:
        raise RequestIdReused("This request_id made another run; give a new request its own id.")
    return run


def _refuse(found: list[Problem]) -> NoReturn:
    """All reasons in one answer; the kind of error is that of the worst: wrong in itself before not ready yet."""
    sentences = " ".join(f"{problem.field} {problem.description}." for problem in found)
    if all(problem.is_state for problem in found):
        reasons = ",".join(problem.reason for problem in found)
        raise RunNotReady(f"The run cannot be planned now. {sentences}", metadata={"reasons": reasons})
    raise RunSpecInvalid(
        f"The run cannot be planned. {sentences}",
        violations=[
            FieldViolation(f"run.spec.{problem.field}", problem.description, problem.reason) for problem in found
        ],
    )
