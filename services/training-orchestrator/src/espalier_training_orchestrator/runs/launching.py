"""Plans and submits the attempt that was written down; the same again as often as needed."""

from espalier_common.db import Database
from espalier_common.telemetry import get_logger
from espalier_training_orchestrator import planner
from espalier_training_orchestrator.launchers import Launcher
from espalier_training_orchestrator.runs import tokens
from espalier_training_orchestrator.runs.checkpoints import read_manifest
from espalier_training_orchestrator.runs.models import Attempt, Run
from espalier_training_orchestrator.runs.survey import Survey

_log = get_logger(__name__)


class Launching:
    """From an attempt row to a launch."""

    def __init__(
        self,
        database: Database,
        *,
        launcher: Launcher,
        survey: Survey,
        trainer: planner.TrainerSettings,
        token_secret: str,
    ) -> None:
        self._database = database
        self._launcher = launcher
        self._survey = survey
        self._trainer = trainer
        self._token_secret = token_secret

    def token(self, *, run_id: str, number: int, nonce: str) -> str:
        """The token of an attempt."""
        return tokens.attempt_token(self._token_secret, run_id=run_id, number=number, nonce=nonce)

    def submit(self, run: Run, attempt: Attempt) -> None:
        """Launches the attempt unless it was launched before. Raises LaunchFailed, LaunchDiskFull."""
        spec = run.spec
        with self._database.transaction() as session:
            facts = self._survey.facts(session, spec, None)
        wanted = planner.AttemptFacts(
            run_id=run.id,
            number=attempt.number,
            directory=attempt.directory,
            output_dir=str(self._survey.places.output_dir(run.id)),
            resume_from=attempt.resumed_from,
            token=self.token(run_id=run.id, number=attempt.number, nonce=attempt.nonce),
        )
        self._launcher.submit(planner.plan_attempt(spec, facts, wanted, trainer=self._trainer))
        _log.info("attempt submitted", run_id=run.id, attempt=attempt.number)

    def has_model(self, run_id: str) -> bool:
        """True when the finished model of the run is in the artifact store."""
        return read_manifest(self._survey.places.model_dir(run_id)) is not None

    def model_bytes(self, run_id: str) -> int:
        """Bytes of the finished model and its adapter; 0 when there is none."""
        model = self._survey.places.model_dir(run_id)
        manifests = [read_manifest(directory) for directory in (model, model.with_name("adapter"))]
        return sum(manifest.size_bytes for manifest in manifests if manifest is not None)
