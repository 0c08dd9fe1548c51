"""Launches on this machine: detached processes that outlive the orchestrator and are found again by their directory."""

from __future__ import annotations

import http.client
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from espalier_training_orchestrator.launchers import lock, process
from espalier_training_orchestrator.launchers.directory import LaunchDirectory, Submission, read_submission
from espalier_training_orchestrator.launchers.errors import LaunchFailed
from espalier_training_orchestrator.launchers.outcome import (
    KILLED_ON_REQUEST,
    PROCESS_DIED,
    SERVER_STOPPED,
    ended_in_order,
)
from espalier_training_orchestrator.spec import LaunchSpec, Observation, Phase, WorkKind

_HOST = "127.0.0.1"
_HEALTH_TIMEOUT = 1.0
_SECRET_NAME = re.compile(r"token|secret|password|credential|_key$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^@\s]+@")


def create(*, interpreter: str = sys.executable) -> LocalLauncher:
    """The launcher of this machine; `interpreter` names the Python whose programs come first in the PATH."""
    return LocalLauncher(interpreter=interpreter)


class LocalLauncher:
    """Starts processes and reads everything else from their directory; it keeps no state that matters."""

    def __init__(self, *, interpreter: str) -> None:
        self._interpreter = interpreter
        self._exit_codes: dict[str, int] = {}

    def plan(self, spec: LaunchSpec) -> Mapping[str, Any]:
        """The process that `submit` would start, secrets masked."""
        return {
            "launcher": "local",
            "name": spec.name,
            "kind": spec.kind.value,
            "command": list(spec.command),
            "directory": spec.directory,
            "environment": {name: _masked(name, value) for name, value in sorted(spec.env.items())},
            "files": {name: _masked(name, text) for name, text in sorted(spec.files.items())},
            "processes": spec.resources.world_size,
            "threads_per_process": spec.resources.threads_per_process,
            "device": spec.resources.device,
            "labels": dict(spec.labels),
            "grace_seconds": spec.grace_seconds,
        }

    def submit(self, spec: LaunchSpec) -> None:
        """Writes the files and starts the process, once whatever happens. Raises LaunchFailed or LaunchDiskFull."""
        directory = LaunchDirectory(spec.directory, spec.kind)
        directory.make()
        held = lock.claim(directory.lock)
        if held is None:
            return  # it runs
        try:
            before = read_submission(spec.directory)
            if not _has_run(directory, before):
                self._start(spec, before=before, directory=directory, held=held)
        finally:
            os.close(held)

    def _start(self, spec: LaunchSpec, *, before: Submission | None, directory: LaunchDirectory, held: int) -> None:
        # The intent comes first: whoever finds it without a process id knows that there may be a process.
        submission = before or Submission(
            name=spec.name,
            kind=spec.kind.value,
            port=_free_port() if spec.kind is WorkKind.SERVER else None,
            health_path=spec.health_path,
        )
        directory.record(submission)
        directory.write_files(spec.files)
        self._exit_codes.pop(spec.name, None)
        pid = self._spawn(spec, port=submission.port, directory=directory, held=held)
        identity = process.identify(pid)
        directory.record(replace(submission, pid=pid, ticks=identity.ticks if identity else 0, started=time.time()))

    def _spawn(self, spec: LaunchSpec, *, port: int | None, directory: LaunchDirectory, held: int) -> int:
        env = process.minimal_environment(self._interpreter) | dict(spec.env)
        env[lock.LOCK_FD_VARIABLE] = str(held)
        env["ESPALIER_GRACE_SECONDS"] = str(spec.grace_seconds)
        if port is not None:
            env["PORT"] = str(port)
        try:
            with directory.own_log.open("ab") as log:
                return process.start_detached(
                    spec.command,
                    directory=directory.path,
                    env=env,
                    log=log.fileno(),
                    inherit=held,
                    on_exit=lambda code: self._exit_codes.__setitem__(spec.name, code),
                )
        except OSError as error:
            raise LaunchFailed(f"{spec.name}: {spec.command[0]} cannot be started: {error.strerror}.") from error

    def observe(self, name: str, directory: str) -> Observation | None:
        """What the directory says now."""
        submission = read_submission(directory)
        if submission is None:
            return None
        place = LaunchDirectory(directory, submission.kind)
        started_at = datetime.fromtimestamp(submission.started, UTC) if submission.started else None
        alive = lock.is_held(place.lock)
        # Only now: an attempt that ended between the two looks has left its result before it let go of the lock.
        result = place.result()
        if result is not None:
            return replace(ended_in_order(result), started_at=started_at, ended_at=place.last_sign())
        if alive:
            return replace(_living(place, submission), started_at=started_at)
        if not _has_run(place, submission):
            return None  # we were killed between intent and start: as good as never submitted
        return replace(self._dead(name, place, submission), started_at=started_at, ended_at=place.last_sign())

    def _dead(self, name: str, place: LaunchDirectory, submission: Submission) -> Observation:
        is_server = submission.kind == WorkKind.SERVER
        outcome = PROCESS_DIED
        if place.cancelled.exists():
            outcome = SERVER_STOPPED if is_server else KILLED_ON_REQUEST
        exit_code = self._exit_codes.get(name)
        tail = place.log_tail()
        return Observation(
            phase=outcome.phase,
            exit_code=exit_code,
            reason=outcome.reason,
            message=_cause(exit_code, tail) if outcome is PROCESS_DIED else outcome.message,
            log_tail=tail,
        )

    def read_log(self, name: str, directory: str, *, rank: int, offset: int, limit: int) -> bytes:  # noqa: ARG002
        """A piece of a log; empty when there is none (yet)."""
        submission = read_submission(directory)
        if submission is None:
            return b""
        try:
            with LaunchDirectory(directory, submission.kind).log_of(rank).open("rb") as log:
                log.seek(max(0, offset))
                return log.read(max(0, limit))
        except FileNotFoundError:
            return b""

    def cancel(self, name: str, directory: str, *, now: bool) -> None:  # noqa: ARG002
        """SIGTERM to the runner or server, which then ends in order; SIGKILL to everything of it with `now`."""
        submission = read_submission(directory)
        if submission is None:
            return
        place = LaunchDirectory(directory, submission.kind)
        place.cancelled.touch()
        if not lock.is_held(place.lock):
            return
        leader = _leader(place, submission)
        if leader is None:
            return
        if now:
            process.kill_session(leader.pid)
        elif not place.stop.exists():  # the runner has heard it already; a second SIGTERM would mean "at once"
            process.ask_to_end(leader)

    def forget(self, name: str, directory: str) -> None:
        """Lets the name of a dead server be used again. Attempts keep their files: they are the run's history."""
        submission = read_submission(directory)
        self._exit_codes.pop(name, None)
        if submission is None or submission.kind != WorkKind.SERVER:
            return
        place = LaunchDirectory(directory, submission.kind)
        if not lock.is_held(place.lock):
            place.cancelled.unlink(missing_ok=True)
            (place.path / "submitted.json").unlink(missing_ok=True)


def _has_run(directory: LaunchDirectory, submission: Submission | None) -> bool:
    """Whether a process was started for this submission, even if we died before we could write that down."""
    if submission is None:
        return False
    if submission.pid is not None or directory.result() is not None:
        return True
    return submission.kind == WorkKind.ATTEMPT and directory.runner_wrote_lock()


def _leader(place: LaunchDirectory, submission: Submission) -> process.ProcessIdentity | None:
    """The runner or server, dead or alive. Something of it lives: its lock is held."""
    if submission.identity is not None:
        return submission.identity
    for pid in lock.holders(place.lock):
        leader = process.session_of(pid)
        if leader is not None:
            return process.identify(leader)
    return None


def _living(place: LaunchDirectory, submission: Submission) -> Observation:
    if submission.kind == WorkKind.ATTEMPT:
        return Observation(phase=Phase.RUNNING if place.log_of(0).exists() else Phase.STARTING)
    if _is_healthy(submission):
        return Observation(phase=Phase.READY, base_url=f"http://{_HOST}:{submission.port}")
    return Observation(phase=Phase.STARTING, reason="LOADING", message="The model is being loaded.")


def _is_healthy(submission: Submission) -> bool:
    if submission.port is None or submission.health_path is None:
        return False
    connection = http.client.HTTPConnection(_HOST, submission.port, timeout=_HEALTH_TIMEOUT)
    try:
        connection.request("GET", submission.health_path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _cause(exit_code: int | None, log_tail: tuple[str, ...]) -> str:
    if exit_code is None:  # it was the child of an orchestrator before us
        return PROCESS_DIED.message
    if exit_code < 0:
        return f"The process was killed ({signal.Signals(-exit_code).name})."
    last = f": {log_tail[-1].strip()}" if log_tail else "."
    return f"The process ended with exit code {exit_code}{last}"


def _free_port() -> int:
    # Imported here: servers alone need it, and the service starts sooner without.
    from espalier_common.infra.processes import free_port

    return free_port()


def _masked(name: str, value: str) -> str:
    return "***" if _SECRET_NAME.search(name) else _URL_PASSWORD.sub(r"\1***@", value)
