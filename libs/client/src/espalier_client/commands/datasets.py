"""Datasets: upload, list, get."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client import lookup
from espalier_client.api import Api
from espalier_client.errors import InvalidInput, UsageError, Violation
from espalier_client.output import Output, OutputFormat, age, bytes_text, emit, is_live, note, stderr, table_of, word
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Upload, list and look at datasets.")

STATE = "DATASET_VERSION_STATE_"
FINDINGS_SHOWN = 20
Files = list[tuple[str, str, Path]]  # split, name within the version, path


@app.command()
def upload(
    name: Annotated[str, typer.Argument(help="Name of the dataset; a new version is made when it exists.")],
    train: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Files to train on.")] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option("--validation", help="File to evaluate on, or NAME=FILE; several are told apart."),
    ] = None,
    row_format: Annotated[
        str, typer.Option("--format", help="alpaca, sharegpt, openai or text; found out when left away.")
    ] = "unspecified",
    description: Annotated[str, typer.Option(help="What it holds and where it comes from.")] = "",
    skip_invalid_rows: Annotated[
        bool, typer.Option("--skip-invalid-rows", help="Leave broken rows out instead of refusing the file.")
    ] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Upload files as the next version of a dataset and wait for the check of their rows."""
    files = _files(train or [], validation or [])
    with open_api(server) as api:
        version = create_version(
            api, name, files, row_format=row_format, description=description, skip_invalid_rows=skip_invalid_rows
        )
        emit(version, output, table=lambda made: _versions([made]))
        refuse_if_rejected(api, version)


@app.command("list")
def list_datasets(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the datasets, newest first."""
    with open_api(server) as api:
        emit(list(api.all("/api/v1/training/datasets", "datasets")), output, table=_datasets)


@app.command()
def get(
    dataset: Annotated[str, typer.Argument(help="Name or id.")],
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Show a dataset with its versions."""
    with open_api(server) as api:
        identity = lookup.dataset_id(api, dataset)
        found = api.get(f"/api/v1/training/datasets/{identity}")
        found["versions"] = list(api.all(f"/api/v1/training/datasets/{identity}/versions", "versions"))
        emit(found, output, table=lambda shown: _versions(shown["versions"]))


@app.command()
def findings(
    version: Annotated[str, typer.Argument(help="NAME, NAME:VERSION or the id of a version.")],
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Show what was found in the rows of a version, by file and line."""
    with open_api(server) as api:
        identity = lookup.dataset_version_id(api, version)
        found = list(api.all(f"/api/v1/training/dataset-versions/{identity}/findings", "findings"))
        emit(found, output, table=_findings)


def create_version(
    api: Api,
    name: str,
    files: Files,
    *,
    row_format: str = "unspecified",
    description: str = "",
    skip_invalid_rows: bool = False,
) -> dict[str, Any]:
    """Uploads files, makes the next version of the dataset of this name, and waits until its rows are checked."""
    existing = list(api.all("/api/v1/training/datasets", "datasets", name=name))
    dataset = (
        existing[0] if existing else api.post("/api/v1/training/datasets", {"name": name, "description": description})
    )
    entries = [{"split": split, "name": label, "upload_id": upload_file(api, path)} for split, label, path in files]
    body = {
        "files": entries,
        "format": f"DATASET_FORMAT_{row_format.upper()}",
        "skip_invalid_rows": skip_invalid_rows,
    }
    version = api.post(f"/api/v1/training/datasets/{dataset['id']}/versions", body)
    while version["state"] == f"{STATE}VALIDATING":
        time.sleep(0.2)
        version = api.get(f"/api/v1/training/dataset-versions/{version['id']}")
    return dict(version)


def upload_file(api: Api, path: Path) -> str:
    """Uploads one file, with a bar where a person looks on. Gives the upload id."""
    with _bar(path) as advance:
        return api.upload(path, advance=advance)


def refuse_if_rejected(api: Api, version: dict[str, Any]) -> None:
    """Raises InvalidInput with the first findings when rows are broken."""
    if version["state"] == f"{STATE}READY":
        return
    path = f"/api/v1/training/dataset-versions/{version['id']}/findings"
    errors = [item for item in api.all(path, "findings", limit=FINDINGS_SHOWN) if item["severity"] == "SEVERITY_ERROR"]
    raise InvalidInput(
        version["message"] or "Rows are broken; no run may use this version.",
        violations=tuple(Violation("", item["message"]) for item in errors),
    )


@contextmanager
def _bar(path: Path) -> Iterator[Any]:
    if not is_live():
        yield lambda _size: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(28), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)
        yield lambda size: progress.update(task, advance=size)


def _files(train: list[Path], validation: list[str]) -> Files:
    files: Files = [("train", "" if len(train) == 1 else _label(path.stem), path) for path in train]
    for text in validation:
        name, equals, file = text.partition("=")
        files.append(("validation", name if equals else "", Path(file if equals else text)))
    if not files:
        raise UsageError("Give at least one file to train on, or to evaluate on with --validation.")
    for _, _, path in files:
        if not path.is_file():
            raise UsageError(f"{path} is no file.")
        if path.stat().st_size == 0:
            raise InvalidInput(f"{path} is empty.")
    return files


def _label(stem: str) -> str:
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-" for letter in stem.lower()
    )[:64]


def _datasets(datasets: list[dict[str, Any]]) -> Any:
    rows = [(item["id"], item["name"], item["latest_version"], age(item["create_time"])) for item in datasets]
    return table_of(("ID", "NAME", "VERSIONS", "AGE"), rows)


def _versions(versions: list[dict[str, Any]]) -> Any:
    rows = [
        (
            version["id"],
            version["version"],
            file["name"] or file["split"],
            word(version["format"], "DATASET_FORMAT_"),
            word(version["state"], STATE),
            file["rows"],
            file["rejected_rows"],
            bytes_text(file["size_bytes"]),
        )
        for version in versions
        for file in version["files"]
    ]
    return table_of(("ID", "VERSION", "FILE", "FORMAT", "STATE", "ROWS", "REJECTED", "SIZE"), rows)


def _findings(found: list[dict[str, Any]]) -> Any:
    if not found:
        note("Nothing was found; every row is usable.")
    rows = [
        (item["file"], item["line"], item["pointer"], word(item["severity"], "SEVERITY_"), item["message"])
        for item in found
    ]
    return table_of(("FILE", "LINE", "FIELD", "", "FINDING"), rows)
