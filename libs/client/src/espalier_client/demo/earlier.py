"""What an earlier demo on the same platform measured."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from espalier_client.api import Api
from espalier_client.demo.report import Result
from espalier_client.errors import NotFound


class Earlier:
    """The result that is kept in a directory, with what was asked for then."""

    def __init__(self, directory: Path, *, asked: dict[str, Any]) -> None:
        self.file = directory / "result.json"
        self._asked_file = directory / "asked.json"
        self._asked = asked

    def keep(self, result: Result) -> None:
        """Keeps a result for the next time."""
        result.write(self.file)
        self._asked_file.write_text(json.dumps(self._asked) + "\n", "utf-8")

    def result(self, api: Api) -> Result | None:
        """The result, if the same was asked for and its runs are still there; else None."""
        try:
            if json.loads(self._asked_file.read_text("utf-8")) != self._asked:
                return None
            kept = Result(**json.loads(self.file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return kept if all(_is_there(api, run_id) for run_id in kept.runs) else None

    def when(self) -> str:
        """When it was measured, in local time."""
        return f"{datetime.fromtimestamp(self.file.stat().st_mtime):%Y-%m-%d %H:%M}"


def _is_there(api: Api, run_id: str) -> bool:
    try:
        return bool(api.get(f"/api/v1/training/runs/{run_id}")["state"] == "RUN_STATE_SUCCEEDED")
    except NotFound:
        return False
