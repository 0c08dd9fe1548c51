"""The processes of the platform on one machine, as data: order, module, and what each is told by its environment."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from espalier_client.local.layout import Layout
from espalier_client.local.ports import setting_of
from espalier_client.local.secrets import Secrets

POSTGRES = "postgres"
NATS = "nats"
GATEWAY = "gateway"
# Without gRPC's event engine a call passes fewer threads on its way: a read takes a third less time (docs/adr/0016).
GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"
RUNNER = "runner"  # the NATS user of all runners: it may publish telemetry only


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the environments are made of."""

    layout: Layout
    secrets: Secrets
    ports: Mapping[str, int]
    database_url: Callable[[str], str]
    nats_url: Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class LocalService:
    """A Python process of the platform: `python -m <module>`."""

    name: str
    module: str
    has_database: bool = True
    own: Callable[[Told], dict[str, str]] = lambda _told: {}


def _auth(told: Told) -> dict[str, str]:
    others = [service.name for service in SERVICES if service.name != "auth"]
    former = told.secrets.former_master_key
    return {
        "ESPALIER_MASTER_KEY": told.secrets.master_key,
        **({"ESPALIER_FORMER_MASTER_KEY": former} if former else {}),
        "ESPALIER_SERVICE_SECRET_HASHES": json.dumps(told.secrets.service_hashes(others)),
        "ESPALIER_ADMIN_PASSWORD_FILE": str(told.layout.admin_password_file),
    }


def _orchestrator(told: Told) -> dict[str, str]:
    return {
        "ESPALIER_LAUNCHER": "local",
        "ESPALIER_RUNNER_NATS_URL": told.nats_url(RUNNER),
        "ESPALIER_TRAINER_PYTHON": sys.executable,
    }


SERVICES = (
    LocalService(name="auth", module="espalier_auth", own=_auth),
    LocalService(name="training-orchestrator", module="espalier_training_orchestrator", own=_orchestrator),
    LocalService(name="model-registry", module="espalier_model_registry"),
    LocalService(name="chat", module="espalier_chat"),
    LocalService(name="eval", module="espalier_eval"),
    LocalService(name="prompt", module="espalier_prompt"),
    LocalService(name=GATEWAY, module="espalier_gateway", has_database=False),
)

# Started in this order, stopped in the reverse one.
NAMES = (POSTGRES, NATS, *(service.name for service in SERVICES))

# What the command itself reads; no service sees it.
OWN_VARIABLES = frozenset(
    {
        "ESPALIER_SERVER",
        "ESPALIER_USERNAME",
        "ESPALIER_PASSWORD",
        "ESPALIER_NEW_PASSWORD",
        "ESPALIER_CODE",
        "ESPALIER_TOKEN",
        "ESPALIER_DEBUG",
    }
)

# What whoever calls the command sets for auth alone: secrets, or where they are.
AUTH_VARIABLES = frozenset(
    {
        "ESPALIER_MASTER_KEY",
        "ESPALIER_FORMER_MASTER_KEY",
        "ESPALIER_ADMIN_PASSWORD",
        "ESPALIER_SMTP_PASSWORD",
        "ESPALIER_OIDC_PROVIDERS",
        "ESPALIER_AUDIT_FORWARD_URL",
        "ESPALIER_AUDIT_FORWARD_SECRET",
    }
)


def settings_of(service: LocalService, told: Told) -> dict[str, str]:
    """The settings of a service; its record keeps their hash, so that a change of them starts it again."""
    name = service.name
    settings = {
        "ESPALIER_HOME": str(told.layout.home),
        "ESPALIER_LISTEN": f"127.0.0.1:{told.ports[name]}",
        "ESPALIER_NATS_URL": told.nats_url(name),
        "ESPALIER_ARTIFACTS_URL": told.layout.artifacts.as_uri(),
        "ESPALIER_SERVICES": json.dumps(addresses(told.ports)),
        "ESPALIER_SERVICE_SECRET": told.secrets.service(name),
        "ESPALIER_MIGRATE_ON_START": "true",
        # Below var/, so that a training compiles DeepSpeed's operator once for this platform and nowhere else.
        "TORCH_EXTENSIONS_DIR": str(told.layout.torch_extensions),
    }
    if service.has_database:
        settings["ESPALIER_DATABASE_URL"] = told.database_url(name)
    return settings | service.own(told)


def addresses(ports: Mapping[str, int]) -> dict[str, str]:
    """Where each service listens."""
    return {service.name: f"127.0.0.1:{ports[service.name]}" for service in SERVICES if service.name != GATEWAY}


def defaults(ports: Mapping[str, int]) -> dict[str, str]:
    """What counts for all services where whoever calls `espalier up` says nothing else."""
    return {"ESPALIER_PUBLIC_URL": f"http://127.0.0.1:{ports[GATEWAY]}"}


def operator_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """ESPALIER_… variables that whoever calls `espalier up` sets for all services, such as ESPALIER_LOG_LEVEL."""
    ours = OWN_VARIABLES | {"ESPALIER_HOME"} | {setting_of(name) for name in NAMES}
    return {name: value for name, value in environment.items() if name.startswith("ESPALIER_") and name not in ours}


def meant_for(service: LocalService, operator: Mapping[str, str]) -> dict[str, str]:
    """Those of the operator's settings that this service is told."""
    return {name: value for name, value in operator.items() if service.name == "auth" or name not in AUTH_VARIABLES}


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without what would change how our Python runs; our scripts come first in PATH."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("ESPALIER_", "PYTHON"))}
    scripts = str(Path(sys.executable).parent)
    kept["PATH"] = f"{scripts}{os.pathsep}{environment.get('PATH', os.defpath)}"
    # Threads allocate from two arenas instead of eight a core: a third less memory at the same speed.
    return {"MALLOC_ARENA_MAX": "2", "GRPC_EXPERIMENTS": GRPC_EXPERIMENTS, **kept}
