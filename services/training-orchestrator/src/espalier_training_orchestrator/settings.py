"""What this service adds to the settings that every service has."""

from pathlib import Path

from pydantic import Field

from espalier_common.settings import ServiceSettings


class TrainingOrchestratorSettings(ServiceSettings):
    """Environment variables with the prefix `ESPALIER_`."""

    launcher: str = Field(default="local", description="name of the launcher: local")
    trainer_python: str = Field(default="", description="Python that has the trainer; this service's own when empty")
    runner_address: str = Field(
        default="", description="host:port under which runners reach this service; ESPALIER_LISTEN when empty"
    )
    runner_nats_url: str = Field(
        default="", repr=False, description="NATS URL of the runners, who may only publish telemetry; none when empty"
    )
    capacity_ranks: int = Field(
        default=0, ge=0, description="CPU ranks of all runs that train at once; the cores, two at least, when 0"
    )
    gpus: int = Field(default=-1, ge=-1, description="GPUs of the machine; counted in /dev when -1, none when 0")
    model_roots: list[Path] = Field(
        default_factory=list, description="directories below which a base model may lie; none allowed when empty"
    )
    server_threads: int = Field(default=0, ge=0, description="threads of a model server on CPU; its own choice when 0")
    reconcile_seconds: float = Field(default=0.5, gt=0, description="pause between two rounds of the reconciler")
    heartbeat_seconds: float = Field(default=1.0, gt=0, description="pause between two heartbeats of a runner")
    heartbeat_silence_seconds: float = Field(
        default=30.0, gt=0, description="a living attempt that says nothing for so long is told to people"
    )
    stop_save_seconds: float = Field(
        default=300.0, gt=0, description="a stop with save that takes longer is ended by force: STOP_TIMEOUT"
    )
    stop_now_seconds: float = Field(default=10.0, gt=0, description="a stop without save that takes longer is a kill")
    upload_hours: float = Field(
        default=24.0, gt=0, description="hours after its last byte that an upload of which no dataset is made is kept"
    )
    findings_per_file: int = Field(default=1000, ge=1, description="findings kept for a file; the counts stay exact")
    log_bytes_per_rank: int = Field(
        default=64 << 20, ge=1 << 16, description="bytes of one rank's log kept in the database"
    )
    swanlab_mode: str = Field(default="disabled", pattern="disabled|offline|cloud", description="SwanLab for all runs")
    swanlab_project: str = Field(default="espalier", description="SwanLab project of all runs")
