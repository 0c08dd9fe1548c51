"""Training runs: create, plan, list, get, watch, logs, stop, resume."""

import sys
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client import lookup, run_file
from espalier_client.api import Api
from espalier_client.errors import ClientError, UsageError
from espalier_client.output import Output, OutputFormat, age, emit, note, number, table_of, word
from espalier_client.progress import follow, run_view
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Start, watch, stop and resume training runs.")

RUNS = "/api/v1/training/runs"
RunReference = Annotated[str, typer.Argument(metavar="RUN", help="Id, beginning of an id, or name.")]
File = Annotated[Path | None, typer.Option("--file", "-f", help="Run file (YAML); flags go before it.")]
Name = Annotated[str | None, typer.Option("--name", help="Name for people.")]
StageFlag = Annotated[str | None, typer.Option("--stage", help="pt or sft.")]
Method = Annotated[str | None, typer.Option("--method", help="full or lora.")]
BaseRun = Annotated[str | None, typer.Option("--base-run", help="Run whose model it starts from.")]
BaseHub = Annotated[str | None, typer.Option("--base-hub", help="Model of a hub, such as Qwen/Qwen3-0.6B.")]
BaseDirectory = Annotated[
    str | None, typer.Option("--base-directory", help="Model directory on the machine that trains.")
]
Dataset = Annotated[list[str] | None, typer.Option("--dataset", "-d", help="NAME, NAME:VERSION or a version's id.")]
Set = Annotated[list[str] | None, typer.Option("--set", "-s", help="Hyperparameter, as in learning_rate=0.001.")]
LoraRank = Annotated[int | None, typer.Option(help="Rank of the LoRA adapters.")]
ZeroStage = Annotated[int | None, typer.Option(help="Train under DeepSpeed with this ZeRO stage, 0 to 3.")]
Ranks = Annotated[int | None, typer.Option(help="Ranks on the machine.")]
DeviceFlag = Annotated[str | None, typer.Option("--device", help="cpu or cuda.")]


def _requested(api: Api, file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    content = run_file.merged(run_file.read(file) if file else {}, flags)
    if not content:
        raise UsageError("Say what to train: a run file with -f, or flags such as --stage, --base-run and --dataset.")
    run = run_file.request(content, dataset_version=lambda reference: lookup.dataset_version_id(api, reference))
    base = run["spec"].get("base_model") if isinstance(run["spec"], dict) else None
    if isinstance(base, dict) and isinstance(base.get("run_id"), str):
        base["run_id"] = lookup.run_id(api, base["run_id"])
    return run


def _flags(
    *,
    name: str | None,
    stage: str | None,
    method: str | None,
    base: dict[str, str | None],
    dataset: list[str] | None,
    settings: list[str] | None,
    lora_rank: int | None,
    zero_stage: int | None,
    ranks: int | None,
    device: str | None,
) -> dict[str, Any]:
    chosen = {key: value for key, value in base.items() if value}
    if len(chosen) > 1:
        raise UsageError("A run starts from one model: give one of --base-run, --base-hub and --base-directory.")
    resources = {"processes_per_node": ranks, "device": device}
    return {
        "name": name,
        "stage": stage,
        "finetuning_type": method,
        "base_model": chosen,
        "datasets": dataset or [],
        "hyperparameters": run_file.assignments(settings or []),
        "lora": {} if lora_rank is None else {"lora_rank": lora_rank},
        "deepspeed": {} if zero_stage is None else {"enabled": True, "zero_stage": zero_stage},
        "resources": {key: value for key, value in resources.items() if value is not None},
    }


@app.command()
def create(
    file: File = None,
    name: Name = None,
    stage: StageFlag = None,
    method: Method = None,
    base_run: BaseRun = None,
    base_hub: BaseHub = None,
    base_directory: BaseDirectory = None,
    dataset: Dataset = None,
    setting: Set = None,
    lora_rank: LoraRank = None,
    zero_stage: ZeroStage = None,
    ranks: Ranks = None,
    device: DeviceFlag = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be launched instead.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run until it has ended.")] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Start a training run."""
    flags = _flags(
        name=name,
        stage=stage,
        method=method,
        base={"run_id": base_run, "hub": base_hub, "directory": base_directory},
        dataset=dataset,
        settings=setting,
        lora_rank=lora_rank,
        zero_stage=zero_stage,
        ranks=ranks,
        device=device,
    )
    with open_api(server) as api:
        requested = _requested(api, file, flags)
        if dry_run:
            emit(api.post(f"{RUNS}:plan", requested), output, table=_plan)
            return
        run = create_run(api, requested)
        if watch:
            run = watch_run(api, run)
        emit(run, output, table=lambda made: _runs([made]))
        _fail_with(run)


@app.command()
def plan(
    file: Annotated[Path, typer.Argument(help="Run file (YAML).")],
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Show what a run file would launch, without launching it."""
    with open_api(server) as api:
        emit(api.post(f"{RUNS}:plan", _requested(api, file, {})), output, table=_plan)


@app.command("list")
def list_runs(
    state: Annotated[str | None, typer.Option(help="Only runs in this state, such as running.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most runs shown.")] = 50,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """List the runs, newest first."""
    wanted = f"RUN_STATE_{state.upper()}" if state else None
    with open_api(server) as api:
        emit(list(api.all(RUNS, "runs", limit=limit, state=wanted)), output, table=_runs)


@app.command()
def get(run: RunReference, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Show a run."""
    with open_api(server) as api:
        emit(api.get(f"{RUNS}/{lookup.run_id(api, run)}"), output, table=_run)


@app.command()
def watch(run: RunReference, server: Server = "") -> None:
    """Follow a run until it has ended. Ctrl-C leaves it running."""
    with open_api(server) as api:
        found = api.get(f"{RUNS}/{lookup.run_id(api, run)}")
        _fail_with(watch_run(api, found))


@app.command()
def logs(
    run: RunReference,
    rank: Annotated[int, typer.Option(min=-1, help="Rank, from 0; -1 is the runner itself.")] = 0,
    attempt: Annotated[int, typer.Option(min=0, help="Attempt, from 1; the newest when left away.")] = 0,
    follow_log: Annotated[bool, typer.Option("--follow", help="Go on until the attempt has ended.")] = False,
    server: Server = "",
) -> None:
    """Print the log of a rank."""
    with open_api(server) as api:
        path = f"{RUNS}/{lookup.run_id(api, run)}/logs"
        if follow_log:
            for chunk in api.events(f"{path}:watch", rank=rank, attempt=attempt):
                _print_log(chunk["text"])
            return
        offset = 0.0
        while True:
            chunk = api.get(path, rank=rank, attempt=attempt, offset=int(offset), limit=1 << 20)
            _print_log(chunk["text"])
            if chunk["next_offset"] <= offset:
                return
            offset = chunk["next_offset"]


@app.command()
def stop(
    run: RunReference,
    now: Annotated[
        bool, typer.Option("--now", help="End at once; what came after the last checkpoint is lost.")
    ] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Stop a run; it saves first unless --now."""
    with open_api(server) as api:
        emit(stop_run(api, lookup.run_id(api, run), now=now), output, table=lambda found: _runs([found]))


@app.command()
def resume(
    run: RunReference,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the run until it has ended.")] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Go on from the newest checkpoint, on the same curve."""
    with open_api(server) as api:
        found = resume_run(api, lookup.run_id(api, run))
        if watch:
            found = watch_run(api, found)
        emit(found, output, table=lambda shown: _runs([shown]))
        _fail_with(found)


def create_run(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    """Starts a run; sent twice, it is made once."""
    return dict(api.call("POST", RUNS, run, query={"request_id": str(uuid.uuid4())}))


def stop_run(api: Api, identity: str, *, now: bool = False) -> dict[str, Any]:
    """Asks a run to stop."""
    return dict(api.post(f"{RUNS}/{identity}:stop", {"mode": "STOP_MODE_NOW" if now else "STOP_MODE_SAVE"}))


def resume_run(api: Api, identity: str) -> dict[str, Any]:
    """Resumes a run."""
    return dict(api.post(f"{RUNS}/{identity}:resume", {}))


def watch_run(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    """Shows a run until it has ended. Gives it as it is then."""
    with run_view(run["name"]) as view:
        return follow(api.events(f"{RUNS}/{run['id']}:watch"), view) or run


def _fail_with(run: dict[str, Any]) -> None:
    if run["state"] == "RUN_STATE_FAILED":
        raise ClientError(f"The run {run['name']} failed: {run['message']}", reason=run["reason"])


def _print_log(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _runs(runs: list[dict[str, Any]]) -> Any:
    return table_of(("ID", "NAME", "STATE", "STEP", "LOSS", "ATTEMPT", "AGE"), [_row(run) for run in runs])


def _row(run: dict[str, Any]) -> tuple[object, ...]:
    at = run.get("progress") or {}
    steps = f"{at.get('step', 0)}/{at.get('total_steps') or '?'}"
    loss = number(at["loss"]) if at.get("step") else ""
    state = word(run["state"], "RUN_STATE_")
    return run["id"], run["name"], state, steps, loss, run["attempt"] or "", age(run["create_time"])


def _run(run: dict[str, Any]) -> Any:
    at, spec = run.get("progress") or {}, run["spec"]
    rows = [
        ("id", run["id"]),
        ("name", run["name"]),
        ("state", word(run["state"], "RUN_STATE_")),
        ("reason", run["reason"]),
        ("message", run["message"]),
        ("stage", word(spec["stage"], "STAGE_")),
        ("method", word(spec["finetuning_type"], "FINETUNING_TYPE_")),
        ("step", f"{at.get('step', 0)} of {at.get('total_steps') or '?'}"),
        ("loss", number(at["loss"]) if at.get("step") else ""),
        ("tokens/s", number(at.get("tokens_per_second"))),
        ("attempt", run["attempt"]),
        ("resumable", "yes" if run["resumable"] else "no"),
        *((name, number(value)) for name, value in sorted(run["summary"].items())),
    ]
    return table_of(("", ""), rows)


def _plan(made: dict[str, Any]) -> str:
    for warning in made["warnings"]:
        note(f"warning: {warning}")
    head = f"# {made['world_size']} ranks: {' '.join(made['command'])}\n"
    return head + str(made["run_yaml"]).rstrip()
