"""Puts the built console into the wheel, when it is built; an editable install serves gateway/web/dist itself."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConsoleHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling calls `initialize` before it builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        dist = Path(self.root) / "web" / "dist"
        if version != "editable" and dist.is_dir():
            build_data["force_include"][str(dist)] = "espalier_gateway/static"
