"""`python -m espalier_trainer.serving --model DIR --served-model-name NAME`; the port comes by the variable PORT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from espalier_data.tokenizer import OWN_TEMPLATE
from espalier_trainer.errors import ConfigError
from espalier_trainer.exit_codes import ExitCode
from espalier_trainer.lock import take_lock
from espalier_trainer.serving.model import ServedModel, check_directory, load_model
from espalier_trainer.serving.worker import Worker

DRAIN_SECONDS = 3

_log = logging.getLogger("espalier_trainer.serving")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM; gives the exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s serving: %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    lock = take_lock(Path("server.lock"), os.environ)
    if lock is None:
        return _failed("another server is at work in this directory", ExitCode.INFRASTRUCTURE)
    try:
        port = _port(os.environ.get("PORT", ""))
        check_directory(options.model)
    except ConfigError as error:
        return _failed(str(error), error.exit_code)
    # Read when torch is imported: the processes of one machine share its cores.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    code = asyncio.run(_serve(options, port))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that still loads a model would hold the end up


async def _serve(options: argparse.Namespace, port: int) -> int:
    import uvicorn

    from espalier_trainer.serving.app import build_app

    loop = asyncio.get_running_loop()
    failures: list[str] = []

    def load() -> ServedModel:
        return load_model(options.model, device=options.device, threads=options.threads, template=options.chat_template)

    def fail(sentence: str) -> None:
        failures.append(sentence)
        loop.call_soon_threadsafe(end)

    def end() -> None:
        server.should_exit = True

    class Server(uvicorn.Server):
        """uvicorn without its own signal handling, which would end the process by the signal instead of a code."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    worker = Worker(load, on_failure=fail)
    server = Server(
        uvicorn.Config(
            build_app(worker, served_model_name=options.served_model_name),
            host=options.host,
            port=port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    worker.start()
    try:
        await server.serve()
    except SystemExit:  # uvicorn's way of saying that it cannot listen; it has logged why
        return _failed(f"port {port} on {options.host} cannot be used; set PORT to a free one", ExitCode.USER_ERROR)
    await asyncio.to_thread(worker.close, 2.0)
    return _failed(failures[0], ExitCode.USER_ERROR) if failures else ExitCode.FINISHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="espalier_trainer.serving", description=__doc__)
    parser.add_argument(
        "--model", required=True, type=Path, help="model directory: config.json, *.safetensors, tokenizer.json"
    )
    parser.add_argument("--served-model-name", required=True, help="the name that clients ask for")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--threads", type=_positive, default=_default_threads(), help="threads on the CPU (default: %(default)s)"
    )
    parser.add_argument(
        "--chat-template", default=OWN_TEMPLATE, help="`model`: the one that came with it, or a built-in one's name"
    )
    return parser


def _default_threads() -> int:
    return min(4, max(1, (os.cpu_count() or 1) // 2))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise ConfigError(f"PORT is {text!r}; it must be a port number")
    return int(text)


def _failed(sentence: str, code: ExitCode) -> ExitCode:
    print(f"error: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
