"""Gathers the facts for a plan: from the database, the artifact store and the platform's settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.orm import Session

from espalier_common.artifacts import ArtifactStore
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Principal
from espalier_common.visibility import reaches
from espalier_training_orchestrator.datasets import repository as datasets
from espalier_training_orchestrator.datasets.models import DatasetFile, DatasetVersion
from espalier_training_orchestrator.runs import repository
from espalier_training_orchestrator.runs.facts import BaseRunFacts, DatasetFacts, Facts, FileFacts, PlatformFacts
from espalier_training_orchestrator.runs.models import Run
from espalier_training_orchestrator.runs.spec import RunSpec

MANIFEST = "MANIFEST.json"
TEXT = "text"  # the one form of rows without answers


@dataclass(frozen=True)
class Places:
    """Where a run's files lie: places in the artifact store, and their absolute paths on this machine."""

    artifacts: ArtifactStore

    def output_dir(self, run_id: str) -> Path:
        """The directory of the run."""
        return self.artifacts.local_path(self.artifacts.uri("runs", run_id))

    def attempt_dir(self, run_id: str, number: int) -> Path:
        """The directory of an attempt."""
        return self.output_dir(run_id) / "attempts" / str(number)

    def checkpoints_dir(self, run_id: str) -> Path:
        """Where checkpoints appear as `step-<n>`."""
        return self.output_dir(run_id) / "checkpoints"

    def model_dir(self, run_id: str) -> Path:
        """The finished model."""
        return self.output_dir(run_id) / "model"


class Survey:
    """Asks for the facts anew each time; nothing is remembered."""

    def __init__(self, *, artifacts: ArtifactStore, platform: PlatformFacts) -> None:
        self.places = Places(artifacts)
        self.platform = platform
        """Without the names of the templates, which cost a tenth of the start-up to load."""
        self._artifacts = artifacts

    def facts(self, session: Session, spec: RunSpec, principal: Principal | None) -> Facts:
        """What a plan of this spec needs to know; a None principal sees everything (a run accepted earlier)."""
        return Facts(
            platform=replace(self.platform, templates=_template_names()),
            datasets=self._datasets(session, spec.dataset_version_ids, principal),
            base_run=self._base_run(session, spec.base_model.run_id, principal),
            base_directory=self._base_directory(spec.base_model.directory),
        )

    def _datasets(
        self, session: Session, version_ids: Sequence[str], principal: Principal | None
    ) -> dict[str, DatasetFacts]:
        ids = [version_id for version_id in version_ids if is_uuid(version_id)]
        versions = datasets.find_versions(session, ids)
        return {
            version.id: self._dataset(version)
            for version in versions.values()
            if principal is None or reaches(version.owner_id, principal)
        }

    def _dataset(self, version: DatasetVersion) -> DatasetFacts:
        files = [self._file(file) for file in version.files if file.training_uri]
        return DatasetFacts(id=version.id, state=version.state.value, message=version.message, files=files)

    def _file(self, file: DatasetFile) -> FileFacts:
        return FileFacts(
            name=file.name,
            split=file.split,
            path=str(self._artifacts.local_path(file.training_uri)),
            format=file.training_format,
            has_answers=file.training_format != TEXT,
            accepted_rows=file.accepted_rows,
        )

    def _base_run(self, session: Session, run_id: str, principal: Principal | None) -> BaseRunFacts | None:
        if not run_id:
            return None
        run = session.get(Run, run_id) if principal is None else repository.find_run(session, run_id, principal)
        if run is None:
            return None
        directory = self.places.model_dir(run.id)
        finished = (directory / MANIFEST).is_file()
        return BaseRunFacts(
            state=run.state.value,
            template=run.spec.template_name,
            model_directory=str(directory) if finished else "",
        )

    def _base_directory(self, directory: str) -> str:
        # Nothing outside of the allowed roots is looked at, so that no answer tells what is there.
        if not directory or not Path(directory).is_absolute() or "\x00" in directory:
            return ""
        try:
            found = Path(directory).resolve()
            allowed = any(found.is_relative_to(root) for root in self.platform.model_roots)
            return str(found) if allowed and (found / "config.json").is_file() else ""
        except OSError:
            return ""


def _template_names() -> Sequence[str]:
    from espalier_data.templates import template_names

    return template_names()
