"""The server as a process: its lock, its end, and what it says when it cannot serve."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

BODY = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 90_000}


def test_one_server_a_directory_and_a_quick_end(start_server: Any, endless_model: Path, tmp_path: Path) -> None:
    server = start_server(endless_model, directory=tmp_path)
    seen = set()
    while 200 not in seen:  # it answers while it loads
        answer = server.get("/health")
        seen |= {answer.status_code} if answer is not None else set()
        if answer is not None and answer.status_code == 503:
            # By now it may have loaded, and then it answers.
            refused = httpx.post(server.url + "/v1/chat/completions", json=BODY | {"max_tokens": 1}, timeout=60)
            assert refused.status_code == 200 or refused.json()["error"]["code"] == "loading"
            assert server.get("/v1/models").status_code in (200, 503)
        assert server.process.poll() is None, server.log
        time.sleep(0.05)
    assert 503 in seen
    assert json.loads((tmp_path / "server.lock").read_text())["pid"] == server.process.pid

    second = start_server(endless_model, directory=tmp_path)
    assert second.process.wait(300) == 75
    assert "another server is at work" in server.log

    with httpx.stream("POST", server.url + "/v1/chat/completions", json=BODY | {"stream": True}, timeout=120) as answer:
        next(answer.iter_bytes())
        started = time.monotonic()
        server.process.terminate()
        assert server.process.wait(120) == 0
    assert time.monotonic() - started < 60, "the answer has no end"
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda model: (model / "config.json").unlink(), "it has no config.json"),
        (lambda model: (model / "model.safetensors").rename(model / "model.bin"), "no *.safetensors"),
        (lambda model: (model / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda model: (model / "config.json").write_text("{"), "cannot be loaded"),
        (lambda model: (model / "model.safetensors").write_bytes(b"\0" * 64), "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_served_is_told_in_the_last_line(
    start_server: Any, endless_model: Path, tmp_path: Path, break_it: Any, words: str
) -> None:
    shutil.copytree(endless_model, tmp_path / "model")
    break_it(tmp_path / "model")
    server = start_server(tmp_path / "model")
    assert server.process.wait(60) == 78
    last = server.log.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last


def test_a_taken_port_is_named(start_server: Any, endless_model: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = start_server(endless_model, port=port)
        assert server.process.wait(60) == 78
    assert f"port {port} on 127.0.0.1 cannot be used; set PORT" in server.log
