"""A tiny model whose answers are known, and a real server process for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
from safetensors.numpy import save_file

from espalier_data import chat_template
from espalier_data.tokenizer import TextTokenizer, save_tokenizer, train_tokenizer

DEADLINE = 300.0
SCRIPT = "Hé 🙂, all well!"
"""What the model says; no token of it occurs twice, so each determines the next."""


def scripted_tokenizer() -> TextTokenizer:
    """A byte-level tokenizer without merges worth speaking of: every emoji is spread over several tokens."""
    return train_tokenizer(["xyz"], vocab_size=300, template=chat_template("chatml"))


def write_scripted_model(directory: Path, *, endless: bool, context: int = 256) -> TextTokenizer:
    """A Llama without attention whose every token names the next: the script, then its end, or the script again."""
    tokenizer = scripted_tokenizer()
    script = list(dict.fromkeys(tokenizer.encode(SCRIPT).ids))
    start = tokenizer.encode("\n").ids[0]  # the last token of every prompt
    last = script[0] if endless else tokenizer.token_id("<|im_end|>")
    successor = dict(zip([start, *script], [*script, last], strict=True))
    size = (tokenizer.vocab_size + 63) // 64 * 64
    head = numpy.zeros((size, size), numpy.float32)
    for token, following in successor.items():
        head[following, token] = 10.0
    _write_llama(directory, size=size, context=context, embedding=numpy.eye(size, dtype=numpy.float32), head=head)
    save_tokenizer(tokenizer, directory)
    return tokenizer


def script_text(tokenizer: TextTokenizer) -> str:
    """What the model says once through."""
    return tokenizer.decode(dict.fromkeys(tokenizer.encode(SCRIPT).ids))


def write_random_model(directory: Path) -> TextTokenizer:
    """A Llama with random weights."""
    tokenizer = scripted_tokenizer()
    random = numpy.random.default_rng(3)
    size = (tokenizer.vocab_size + 63) // 64 * 64
    weights = random.normal(size=(2, size, size)).astype(numpy.float32)
    weights[1, tokenizer.vocab_size :] = 0  # padding of the vocabulary, which is never said
    _write_llama(directory, size=size, context=128, embedding=weights[0], head=weights[1], random=random)
    save_tokenizer(tokenizer, directory)
    return tokenizer


def _write_llama(directory: Path, *, size: int, context: int, embedding: Any, head: Any, random: Any = None) -> None:
    def matrix() -> Any:
        return (random.normal(size=(size, size)) * 0.05 if random else numpy.zeros((size, size))).astype(numpy.float32)

    layer = "model.layers.0."
    names = [f"{layer}self_attn.{name}_proj.weight" for name in "qkvo"]
    names += [f"{layer}mlp.{name}_proj.weight" for name in ("gate", "up", "down")]
    norms = [f"{layer}input_layernorm.weight", f"{layer}post_attention_layernorm.weight", "model.norm.weight"]
    weights = {name: matrix() for name in names} | {name: numpy.ones(size, numpy.float32) for name in norms}
    weights |= {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size,
        "intermediate_size": size,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": context,
        "vocab_size": size,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@dataclass
class ServerProcess:
    """A server as the launcher starts it."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text()

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(self.url + path, timeout=60)
        except httpx.TransportError:
            return None

    def wait_ready(self) -> None:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log
            answer = self.get("/health")
            if answer is not None and answer.status_code == 200:
                return
            time.sleep(0.05)
        raise AssertionError(self.log)


def free_port() -> int:
    from espalier_common.infra import processes

    return processes.free_port()


StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Factory of server processes, all ended after the module."""
    started: list[ServerProcess] = []

    def start(model: Path, *, directory: Path | None = None, port: int | None = None) -> ServerProcess:
        place = directory or tmp_path_factory.mktemp("server")
        chosen = port or free_port()
        command = [sys.executable, "-m", "espalier_trainer.serving", "--model", str(model)]
        with (place / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--served-model-name", "tiny", "--threads", "1"],
                cwd=place,
                env={"PATH": os.environ["PATH"], "PORT": str(chosen), "HF_HUB_OFFLINE": "1", "HOME": str(place)},
                stdout=log,
                stderr=log,
            )
        started.append(ServerProcess(process, place, chosen))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait(DEADLINE)


@pytest.fixture(scope="module")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends by itself."""
    directory = tmp_path_factory.mktemp("endless")
    write_scripted_model(directory, endless=True, context=100_000)
    return directory


@pytest.fixture(scope="module")
def server(start_server: StartServer, endless_model: Path) -> ServerProcess:
    """A ready server of the endless model."""
    found = start_server(endless_model)
    found.wait_ready()
    return found


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client of that server."""
    with httpx.Client(base_url=server.url, timeout=300) as found:
        yield found


@pytest.fixture
def scripted(tmp_path: Path) -> tuple[Path, str]:
    """A model that says one sentence and ends, and the sentence."""
    tokenizer = write_scripted_model(tmp_path / "model", endless=False)
    return tmp_path / "model", script_text(tokenizer)


@pytest.fixture
def random_model(tmp_path: Path) -> Path:
    """A model with random weights."""
    write_random_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def sentence() -> str:
    """What the endless model repeats."""
    return script_text(scripted_tokenizer())
