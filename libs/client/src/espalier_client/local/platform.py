"""Starts, stops and looks at the platform. Level-triggered: what runs as it should is left alone, the rest is started.

PostgreSQL and NATS first, side by side; then all services side by side; then we wait until each says that it is ready.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from espalier_client.errors import PlatformError
from espalier_client.local import health, ports, secrets, table, trainings
from espalier_client.local.layout import Layout, disk_errors
from espalier_client.local.table import NATS, POSTGRES, LocalService, Told
from espalier_common.infra import processes
from espalier_common.infra.nats import LocalNats
from espalier_common.infra.postgres import LocalPostgres
from espalier_common.infra.processes import PortTaken, ProcessError, ProcessRecord

READY_SECONDS = 240.0  # what ends while it starts is told at once; this is for a machine that is slow
TRIES = 3
SERVICE_STOP_SECONDS = 15.0

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Started:
    """What `up` did. `seconds` until everything was ready; `names` of what it had to start."""

    gateway_url: str
    names: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """What `down` did. `kept_runs` go on training."""

    names: tuple[str, ...]
    runs: tuple[trainings.Ended, ...]
    kept_runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ProcessStatus:
    """One process, with its children, as it is now. `memory` in bytes, shared pages once (PSS); `uptime` in seconds."""

    name: str
    running: bool
    pid: int | None
    port: int | None
    uptime: float | None
    memory: int | None


def up(layout: Layout, *, environment: Mapping[str, str], report: Report) -> Started:
    """Starts what does not run and waits until all is ready. Raises PlatformError with the reason in a sentence."""
    began = time.monotonic()
    layout.create()
    with disk_errors(layout.home), _alone(layout, report), _told_as_platform_errors():
        told, fresh = _start_all(layout, environment, report)
        health.wait_for_all(told.ports, layout, deadline=READY_SECONDS)
    url = f"http://127.0.0.1:{told.ports[table.GATEWAY]}"
    return Started(gateway_url=url, names=tuple(fresh), seconds=time.monotonic() - began)


def _start_all(layout: Layout, environment: Mapping[str, str], report: Report) -> tuple[Told, list[str]]:
    """What the processes were told, and the names of those that did not run."""
    fresh: list[str] = []
    for left in reversed(range(TRIES)):
        told, postgres, nats = _prepare(layout, environment)
        try:
            starting = [name for name, server in ((POSTGRES, postgres), (NATS, nats)) if not server.is_running()]
            with ThreadPoolExecutor(2) as pool:
                for future in [pool.submit(postgres.start), pool.submit(nats.start)]:
                    future.result()
            fresh += [name for name in starting if name not in fresh]
            fresh += _start_services(told, postgres, environment, report)
            break
        except PortTaken:
            # Somebody was quicker, such as another platform that starts: another is chosen, but for those asked for.
            if not left:
                raise
    return told, list(dict.fromkeys(fresh))


def down(layout: Layout, *, keep_runs: bool, report: Report) -> Stopped:
    """Stops everything in the reverse order; trainings save and end unless `keep_runs`."""
    if not layout.run.is_dir():
        return Stopped(names=(), runs=(), kept_runs=())
    with disk_errors(layout.home), _alone(layout, report), _told_as_platform_errors():
        stopped = _stop_services(layout)
        # The orchestrator is gone by now, so that it does not start again what is being ended; it reads the results
        # at its next start. NATS still runs: the last telemetry reaches it.
        trainings.end_servers(trainings.living_servers(layout.artifacts))
        runners = trainings.living_runners(layout.artifacts)
        if runners and not keep_runs:
            report(f"asking {_count(len(runners), 'training run')} to save and end")
        runs = () if keep_runs else tuple(trainings.save_and_end(runners))
        stopped += [name for name, stop in _infrastructure(layout) if stop()]
    kept = tuple(runner.name for runner in runners) if keep_runs else ()
    return Stopped(names=tuple(stopped), runs=runs, kept_runs=kept)


def status(layout: Layout) -> list[ProcessStatus]:
    """Every process as it is now, in the order of the start."""
    return [_status_of(layout, name) for name in table.NAMES]


def run_command(layout: Layout, name: str, words: Sequence[str], *, environment: Mapping[str, str]) -> str:
    """Runs a command of a service in place of serving, such as `python -m espalier_auth rotate-keys`, as `up` would
    run the service; gives what it prints. Raises PlatformError with what it says when it fails, and when no platform is
    here.
    """
    if not layout.secrets_file.exists():
        raise PlatformError(f"There is no platform below {layout.home}: ESPALIER_HOME names its folder.")
    told, postgres, _ = _prepare(layout, environment)
    if not postgres.is_running():
        raise PlatformError("The platform does not run; `espalier up` starts it.")
    service = next(each for each in table.SERVICES if each.name == name)
    operator = table.defaults(told.ports) | table.operator_settings(environment)
    settings = table.meant_for(service, operator) | table.settings_of(service, told)
    done = subprocess.run(
        [sys.executable, "-m", service.module, *words],
        env={**table.inherited(environment), **settings}, cwd=layout.home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise PlatformError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{name} ended without a word."
        )
    return done.stdout


def _status_of(layout: Layout, name: str) -> ProcessStatus:
    record = processes.read_record(layout.record_file(name))
    if record is None or not processes.is_alive(record):
        return ProcessStatus(name=name, running=False, pid=None, port=None, uptime=None, memory=None)
    try:
        process = psutil.Process(record.pid)
        family = [process, *process.children(recursive=True)]
        memory = sum(member.memory_full_info().pss for member in family)
    except psutil.Error:  # it ended just now, or belongs to somebody else
        memory = None
    return ProcessStatus(
        name=name,
        running=True,
        pid=record.pid,
        port=record.extra.get("port"),
        uptime=max(0.0, time.time() - record.created),
        memory=memory,
    )


def _prepare(layout: Layout, environment: Mapping[str, str]) -> tuple[Told, LocalPostgres, LocalNats]:
    names = [service.name for service in table.SERVICES]
    users = [*names, table.RUNNER]
    kept = secrets.load_or_create(layout.secrets_file, services=names, nats_users=users)
    assigned = ports.assign(
        table.NAMES,
        file=layout.run / "ports.json",
        environment=environment,
        is_running=lambda name: processes.is_alive(processes.read_record(layout.record_file(name))),
    )
    postgres = _postgres(layout, port=assigned[POSTGRES], password=kept.postgres)
    nats = _nats(layout, port=assigned[NATS], passwords={user: kept.nats(user) for user in users})
    told = Told(
        layout=layout,
        secrets=kept,
        ports=assigned,
        database_url=lambda name: postgres.url(name, user=name, password=kept.database(name)),
        nats_url=nats.url,
    )
    return told, postgres, nats


def _postgres(layout: Layout, *, port: int, password: str) -> LocalPostgres:
    return LocalPostgres(
        layout.home / "postgres",
        port=port,
        password=password,
        pid_file=layout.record_file(POSTGRES),
        log_file=layout.log_file(POSTGRES),
        port_setting=ports.setting_of(POSTGRES),
    )


def _nats(layout: Layout, *, port: int, passwords: Mapping[str, str]) -> LocalNats:
    return LocalNats(
        layout.home / "nats",
        port=port,
        passwords=passwords,
        pid_file=layout.record_file(NATS),
        log_file=layout.log_file(NATS),
        port_setting=ports.setting_of(NATS),
    )


def _infrastructure(layout: Layout) -> list[tuple[str, Callable[[], bool]]]:
    """What stops last. Neither port nor passwords matter for that."""
    return [
        (NATS, _nats(layout, port=0, passwords={}).stop),
        (POSTGRES, _postgres(layout, port=0, password="").stop),
    ]


def _start_services(told: Told, postgres: LocalPostgres, environment: Mapping[str, str], report: Report) -> list[str]:
    """Starts the services that do not run, or run with other settings. Gives their names."""
    operator = table.defaults(told.ports) | table.operator_settings(environment)
    due = []
    for service in table.SERVICES:
        settings = table.meant_for(service, operator) | table.settings_of(service, told)
        record = processes.read_record(told.layout.record_file(service.name))
        if record is None or not processes.is_alive(record):
            due.append((service, settings))
        elif record.extra.get("settings") != _digest(settings):
            report(f"{service.name} runs with other settings and is started again")
            _stop(told.layout, service.name)
            due.append((service, settings))
    for service, _ in due:
        if service.has_database:
            postgres.ensure_database(service.name, password=told.secrets.database(service.name))
    for service, settings in due:
        _start(told, service, settings, environment)
    return [service.name for service, _ in due]


def _start(
    told: Told, service: LocalService, settings: Mapping[str, str], environment: Mapping[str, str]
) -> ProcessRecord:
    port = told.ports[service.name]
    if not ports.is_free(port):
        raise PortTaken(port, ports.setting_of(service.name))
    return processes.start(
        [sys.executable, "-m", service.module],
        pid_file=told.layout.record_file(service.name),
        log_file=told.layout.log_file(service.name),
        env={**table.inherited(environment), **settings},
        cwd=told.layout.home,
        extra={"port": port, "settings": _digest(settings)},
    )


def _stop_services(layout: Layout) -> list[str]:
    """The gateway first, so that nobody is answered by half a platform; then the rest side by side."""
    names = [service.name for service in reversed(table.SERVICES) if service.name != table.GATEWAY]
    stopped = [table.GATEWAY] if _stop(layout, table.GATEWAY) else []
    with ThreadPoolExecutor(len(names)) as pool:
        ended = list(pool.map(lambda name: _stop(layout, name), names))
    return stopped + [name for name, did in zip(names, ended, strict=True) if did]


def _stop(layout: Layout, name: str) -> bool:
    return processes.stop(processes.read_record(layout.record_file(name)), deadline=SERVICE_STOP_SECONDS)


def _digest(settings: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@contextmanager
def _alone(layout: Layout, report: Report) -> Iterator[None]:
    """One `up` or `down` at a time for a platform; a second one waits. The kernel frees the lock of a killed one."""
    descriptor = os.open(layout.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another espalier starts or stops this platform; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _told_as_platform_errors() -> Iterator[None]:
    try:
        yield
    except ProcessError as error:
        raise PlatformError(str(error)) from error
