"""Whoever runs the platform finds each setting in the README of what reads it."""

import importlib
import re
from pathlib import Path

import pytest

from espalier_common.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
# README, and the class whose fields it names; the gateway's leaves the prefix away.
WHERE = {
    "libs/common": "espalier_common.settings:ServiceSettings",
    "services/auth": "espalier_auth.settings:AuthSettings",
    "services/chat": "espalier_chat.settings:ChatSettings",
    "services/model-registry": "espalier_model_registry.settings:ModelRegistrySettings",
    "services/training-orchestrator": "espalier_training_orchestrator.settings:TrainingOrchestratorSettings",
    "gateway": "espalier_gateway.settings:GatewaySettings",
}


@pytest.mark.parametrize("folder", WHERE)
def test_every_setting_stands_in_the_readme(folder: str) -> None:
    module, _, name = WHERE[folder].partition(":")
    settings = getattr(importlib.import_module(module), name)
    own = set(settings.model_fields) - (set() if settings is ServiceSettings else set(ServiceSettings.model_fields))
    # `ESPALIER_SMTP_HOST`, `_PORT`: what several have in common is written once.
    told = re.findall(r"`(?:ESPALIER_)?([A-Z_]+)`", (ROOT / folder / "README.md").read_text("utf-8"))
    endings = tuple(word for word in told if word.startswith("_"))
    lacking = [field for field in sorted(own) if field.upper() not in told and not field.upper().endswith(endings)]
    assert not lacking, f"{folder}/README.md does not name {lacking}"
