"""Importing a module is free: no file written, no socket, no process, no setting read; and layers hold."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import EDGE_FILES, MEMBERS, ROOT, SERVICES, WIRE_PACKAGES, module, sources

# Runs in a fresh interpreter: reports every act of an import that reaches beyond the interpreter itself.
WATCH = """
import importlib, os, sys
ours = tuple(sys.argv[1].split(","))
acts = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.fork", "os.mkdir", "os.remove"):
        acts.append(f"{event} {arguments[:1]}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        acts.append(f"open for writing {arguments[0]}")
    if event == "import" and arguments[0].startswith("espalier_") and arguments[0] in names:
        pass
sys.dont_write_bytecode = True
names = sys.argv[2].split(",")
before = dict(os.environ)
import threading
if "espalier_trainer.rank" in names:  # what torch and its kin do when they are imported is theirs
    import deepspeed, peft, torch
    from transformers import Trainer
    from trl import SFTConfig, SFTTrainer
sys.addaudithook(watch)
for name in names:
    count, threads = len(acts), threading.active_count()
    importlib.import_module(name)
    for act in acts[count:]:
        print(f"{name}: {act}")
    if threading.active_count() > threads:
        print(f"{name}: started a thread")
    if name.split(".")[0] != "espalier_trainer" and "torch" in sys.modules:
        print(f"{name}: imported torch")
        break
"""


@pytest.mark.parametrize("member", MEMBERS)
def test_importing_is_free_of_side_effects(member: str, tmp_path: Path) -> None:
    names = [module(p) for p in sources() if p.is_relative_to(ROOT / member) and p.stem != "__main__"]
    environment = {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "DS_ACCELERATOR": "cpu",
    }
    script = tmp_path / "watch.py"
    script.write_text(WATCH, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script), "", ",".join(names)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_layers_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--config", ROOT / ".importlinter", "--no-cache"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_grpc_nats_and_generated_messages_stop_at_the_edge(service: str) -> None:
    inner = [p for p in sources() if p.is_relative_to(ROOT / "services" / service) and p.stem not in EDGE_FILES]
    assert [f"{module(p)} imports {name}" for p in inner for name in imports(p) if name in WIRE_PACKAGES] == []


def imports(path: Path) -> set[str]:
    """The packages, by their first name, that a file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}
