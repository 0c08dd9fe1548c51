"""Measures a platform of its own on this machine: `python bench/bench.py [--restarts 5] [--requests 300]`.

Start-up: `espalier up` after a clean `down`, data kept. Memory: all processes of the idle platform, without model
servers; PSS counts a shared page once, RSS as often as it is mapped. Latency: one caller, through the gateway.
"""

import argparse
import json
import os
import platform as machine
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accounts
import httpx
import psutil
from rich.console import Console

from espalier_client.local import platform, table
from espalier_client.local.layout import Layout
from espalier_client.local.ports import is_free
from espalier_client.output import table_of
from espalier_common.infra import processes

RESULTS = Path(__file__).resolve().parent / "results"
SETTLE_SECONDS = 10.0
RUNS_LISTED = 20
LIMITS = {
    "start-up, median (s)": 8.0,
    "idle memory, PSS (MiB)": 900.0,
    "read, 50 users, p50 (ms)": 4.0,
    "read, 50 users, p99 (ms)": 25.0,
    "read beside logins, p99 (ms)": 100.0,
    "cached token (µs)": 1.0,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=5, help="starts to measure")
    parser.add_argument("--requests", type=int, default=300, help="calls of each kind; a tenth of them for login")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="espalier-bench-"))
    home.chmod(0o755)  # PostgreSQL runs as another user when we are root
    layout = Layout(home)
    environment = {**os.environ, "ESPALIER_GATEWAY_PORT": str(free_port())}
    try:
        result = measure(layout, environment, restarts=arguments.restarts, requests=arguments.requests)
    finally:
        platform.down(layout, keep_runs=False, report=progress)
        shutil.rmtree(home, ignore_errors=True)
    show(result)
    return 0


def measure(layout: Layout, environment: dict[str, str], *, restarts: int, requests: int) -> dict[str, Any]:
    """Everything, in the order in which it disturbs itself least."""
    first = platform.up(layout, environment=environment, report=progress)
    progress(f"first start: {first.seconds:.2f} s")
    starts = []
    for _ in range(restarts):
        platform.down(layout, keep_runs=False, report=progress)
        starts.append(platform.up(layout, environment=environment, report=progress).seconds)
        progress(f"start: {starts[-1]:.2f} s")
    time.sleep(SETTLE_SECONDS)
    memory = memory_of(layout)
    latency, accounts_result = latencies(first.gateway_url, layout, requests=requests)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {"cores": os.cpu_count(), "python": machine.python_version(), "load": os.getloadavg()[0]},
        "start_seconds": {"first": first.seconds, "restarts": starts, "median": statistics.median(starts)},
        "memory_bytes": memory,
        "latency_milliseconds": latency,
        "accounts": accounts_result,
    }


def memory_of(layout: Layout) -> dict[str, dict[str, int]]:
    """PSS and RSS of each process with its children, in bytes."""
    found = {}
    for name in table.NAMES:
        leader = leader_of(layout, name)
        family = [item.memory_full_info() for item in (leader, *leader.children(recursive=True))]
        found[name] = {"pss": sum(item.pss for item in family), "rss": sum(item.rss for item in family)}
    return found


def leader_of(layout: Layout, name: str) -> psutil.Process:
    """The process that runs under this name."""
    record = processes.read_record(layout.record_file(name))
    assert record is not None, f"{name} does not run"
    return psutil.Process(record.pid)


def latencies(url: str, layout: Layout, *, requests: int) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Milliseconds of login, list runs and get run of one caller; then what many at once see (see `accounts`)."""
    password = layout.admin_password_file.read_text("utf-8").strip()
    with httpx.Client(base_url=url, timeout=30) as http:

        def login() -> str:
            body = {"username": "admin", "password": password}
            return str(answered(http.post("/api/v1/auth/login", json=body))["access_token"])

        http.headers["authorization"] = f"Bearer {login()}"
        run = make_runs(http)
        alone = {
            "login": percentiles(login, max(20, requests // 10)),
            "list runs": percentiles(lambda: answered(http.get("/api/v1/training/runs")), requests),
            "get run": percentiles(lambda: answered(http.get(f"/api/v1/training/runs/{run}")), requests),
        }
        path = f"/api/v1/training/runs/{run}"
        pids = {name: leader_of(layout, name).pid for name in table.NAMES}
        return alone, accounts.measure(url, token=login(), path=path, password=password, pids=pids)


def make_runs(http: httpx.Client) -> str:
    """Some runs that were stopped before they trained. Gives the id of one."""
    rows = "".join(json.dumps({"text": f"{n} and {n} make {2 * n}."}) + "\n" for n in range(100))
    kind = {"content-type": "application/octet-stream"}
    sent = http.post("/api/v1/files", params={"filename": "sums.jsonl"}, content=rows, headers=kind)
    upload = answered(sent)["upload_id"]
    dataset = answered(http.post("/api/v1/training/datasets", json={"name": "sums"}))["id"]
    files = {"files": [{"split": "train", "upload_id": upload}]}
    version = answered(http.post(f"/api/v1/training/datasets/{dataset}/versions", json=files))["id"]
    while answered(http.get(f"/api/v1/training/dataset-versions/{version}"))["state"].endswith("VALIDATING"):
        time.sleep(0.05)
    spec = {
        "stage": "STAGE_PT",
        "base_model": {"scratch": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": 64, "vocab_size": 400,
        }},
        "dataset_version_ids": [version],
        "hyperparameters": {"max_steps": 10, "cutoff_len": 64},
    }  # fmt: skip
    run = ""
    for number in range(RUNS_LISTED):
        run = answered(http.post("/api/v1/training/runs", json={"name": f"run {number}", "spec": spec}))["id"]
        answered(http.post(f"/api/v1/training/runs/{run}:stop", json={"mode": "STOP_MODE_NOW"}))
    ended = {"RUN_STATE_CANCELLED", "RUN_STATE_STOPPED", "RUN_STATE_FAILED", "RUN_STATE_SUCCEEDED"}
    while any(item["state"] not in ended for item in answered(http.get("/api/v1/training/runs"))["runs"]):
        time.sleep(0.2)
    return str(run)


def percentiles(call: Callable[[], object], count: int) -> dict[str, float]:
    """Milliseconds of `count` calls after a few that warm up."""
    for _ in range(min(5, count)):
        call()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1000)
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "count": count}


def answered(answer: httpx.Response) -> Any:
    """The JSON of an answer that succeeded."""
    if answer.is_error:
        raise SystemExit(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
    return answer.json()


def show(result: dict[str, Any]) -> None:
    """The table; the same, whole, goes to bench/results."""
    memory, latency, starts = result["memory_bytes"], result["latency_milliseconds"], result["start_seconds"]
    rows = [
        ("start-up, first (s)", f"{starts['first']:.2f}"),
        ("start-up, median (s)", f"{starts['median']:.2f}"),
        *(
            (f"idle memory, {kind.upper()} (MiB)", f"{sum(item[kind] for item in memory.values()) / 2**20:.0f}")
            for kind in ("pss", "rss")
        ),
        *((f"{name}, {cut} (ms)", f"{values[cut]:.1f}") for name, values in latency.items() for cut in ("p50", "p99")),
        *account_rows(result["accounts"]),
    ]
    limits = [(name, value, f"{LIMITS[name]:g}" if name in LIMITS else "") for name, value in rows]
    console = Console()
    console.print(table_of(("measure", "value", "at most"), limits))
    parts = [(name, f"{item['pss'] / 2**20:.0f}", f"{item['rss'] / 2**20:.0f}") for name, item in memory.items()]
    console.print()
    console.print(table_of(("process", "PSS (MiB)", "RSS (MiB)"), parts))
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{result['measured_at'].replace(':', '')}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    progress(f"written to {file}")


def account_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The lines on sign-in of the table."""
    bare, logins = found["bare_argon2id_per_second"], found["logins"]
    kinds = {
        "read, 50 users": "reads_of_50_users",
        "read, 50 users without pause": "reads_of_50_users_without_pause",
        "read beside logins": "reads_beside_logins",
    }
    return [
        *((f"{name}, {cut} (ms)", f"{found[key][cut]:.1f}") for name, key in kinds.items() for cut in ("p50", "p99")),
        ("reads of 50 users without pause (1/s)", f"{found['reads_of_50_users_without_pause']['per_second']:.0f}"),
        ("cached token (µs)", f"{found['cached_token_microseconds']:.2f}"),
        ("bare argon2id (1/s)", f"{bare:.1f}"),
        (
            "logins beside reads (1/s), at least 0.8 of bare",
            f"{logins['per_second']:.1f} = {logins['per_second'] / bare:.2f}",
        ),
        *(
            (f"CPU of a login, {name} (ms)", f"{taken:.2f}")
            for name, taken in found["cpu_milliseconds_per_login"].items()
            if taken >= 0.1
        ),
    ]


def commit() -> str:
    """The commit that is measured; empty outside a clone."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections."""
    return next(port for port in range(18_080, 20_000) if is_free(port))


def progress(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
