"""What the runner is told: by its environment where it works and whom it speaks to, by run.yaml what to start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from espalier_trainer.errors import ConfigError

RUN_FILE = "run.yaml"
_DEFAULT_GRACE = 120.0


@dataclass(frozen=True, kw_only=True)
class RunnerSettings:
    """The variables of the runner."""

    directory: Path
    """ESPALIER_RUN_DIR: the attempt's directory, with run.yaml in it."""
    orchestrator: str = ""
    """ESPALIER_ORCHESTRATOR: host:port of the training orchestrator; empty: nobody to report to."""
    nats_url: str = field(default="", repr=False)
    """ESPALIER_NATS_URL: where telemetry goes; empty: metrics.jsonl and the logs are all there is."""
    token: str = field(default="", repr=False)
    """Content of ESPALIER_ATTEMPT_TOKEN_FILE: proves to the orchestrator which attempt speaks."""
    grace_seconds: float = _DEFAULT_GRACE
    """ESPALIER_GRACE_SECONDS: how long a save that was asked for may take before the ranks are killed."""
    sigterm_means: Literal["stop", "preemption"] = "stop"
    """ESPALIER_SIGTERM_MEANS: who sends SIGTERM: a user who stops the run, or a cluster that takes the machine away."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the runner has to know of run.yaml."""

    run_id: str
    attempt: int
    output_dir: Path
    processes: int
    threads: int


def read_settings(env: Mapping[str, str]) -> RunnerSettings:
    """Settings from the environment. Raises ConfigError that names the variable."""
    directory = env.get("ESPALIER_RUN_DIR", "")
    if not Path(directory).is_absolute() or not Path(directory).is_dir():
        raise ConfigError(f"ESPALIER_RUN_DIR is {directory!r}; it must be the absolute path of the attempt's directory")
    meaning = env.get("ESPALIER_SIGTERM_MEANS") or "stop"
    if meaning not in ("stop", "preemption"):
        raise ConfigError(f"ESPALIER_SIGTERM_MEANS is {meaning!r}; it must be stop or preemption")
    return RunnerSettings(
        directory=Path(directory),
        orchestrator=env.get("ESPALIER_ORCHESTRATOR", ""),
        nats_url=env.get("ESPALIER_NATS_URL", ""),
        token=_read_token(env.get("ESPALIER_ATTEMPT_TOKEN_FILE", ""), wanted="ESPALIER_ORCHESTRATOR" in env),
        grace_seconds=_seconds("ESPALIER_GRACE_SECONDS", env.get("ESPALIER_GRACE_SECONDS", "")),
        sigterm_means="preemption" if meaning == "preemption" else "stop",
    )


def read_plan(path: Path) -> Plan:
    """The runner's share of run.yaml; the ranks check the whole. Raises ConfigError."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping")
    resources = content.get("resources")
    resources = resources if isinstance(resources, dict) else {}
    if _count(resources, "nodes", "resources.nodes") != 1:
        raise ConfigError(f"{path}: resources.nodes is more than 1, and this runner starts the ranks of one machine")
    output_dir = content.get("output_dir")
    if not isinstance(output_dir, str) or not Path(output_dir).is_absolute():
        raise ConfigError(f"{path}: output_dir must be an absolute path")
    return Plan(
        run_id=str(content.get("run_id") or ""),
        attempt=_count(content, "attempt", "attempt"),
        output_dir=Path(output_dir),
        processes=_count(resources, "processes_per_node", "resources.processes_per_node"),
        threads=_count(resources, "threads_per_process", "resources.threads_per_process"),
    )


def _count(section: Mapping[str, Any], key: str, place: str) -> int:
    value = section.get(key, 1)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"run.yaml: {place} is {value!r}; it must be a whole number of at least 1")
    return value


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value or _DEFAULT_GRACE)
    except ValueError:
        raise ConfigError(f"{name} is {value!r}; it must be a number of seconds") from None
    if not 0 < seconds < 86_400:
        raise ConfigError(f"{name} is {value}; it must lie between 0 and 86400 seconds")
    return seconds


def _read_token(path: str, *, wanted: bool) -> str:
    if not path:
        if wanted:
            raise ConfigError("ESPALIER_ATTEMPT_TOKEN_FILE is not set; the orchestrator answers nobody without a token")
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}") from error
