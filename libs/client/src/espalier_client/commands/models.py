"""Models: register, list, deploy, undeploy, deployments."""

import time
from typing import Annotated, Any

import typer

from espalier_client import lookup
from espalier_client.api import Api
from espalier_client.errors import ClientError
from espalier_client.output import Output, OutputFormat, age, emit, note, table_of, word
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Register trained models, deploy and undeploy them.")

STATE = "DEPLOYMENT_STATE_"
READY_SECONDS = 600.0
STOP_SECONDS = 60.0


@app.command("list")
def list_models(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the models, newest first."""
    with open_api(server) as api:
        emit(list(api.all("/api/v1/models", "models")), output, table=_models)


@app.command()
def versions(
    model: Annotated[str, typer.Argument(help="Name or id.")], output: Output = OutputFormat.TABLE, server: Server = ""
) -> None:
    """List the versions of a model with their lineage."""
    with open_api(server) as api:
        path = f"/api/v1/models/{lookup.model_id(api, model)}/versions"
        emit(list(api.all(path, "versions")), output, table=_versions)


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="Name of the model; made when it does not exist.")],
    run: Annotated[str, typer.Argument(help="Finished run: id, beginning of an id, or name.")],
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Register a run's finished model as the next version of a model."""
    with open_api(server) as api:
        version = register_run(api, name, lookup.run_id(api, run), description=description)
        emit(version, output, table=lambda made: _versions([made]))


@app.command()
def deploy(
    version: Annotated[str, typer.Argument(help="MODEL, MODEL:VERSION or the id of a version.")],
    name: Annotated[str, typer.Option(help="Name of the deployment; made from the model's when left away.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    wait: Annotated[bool, typer.Option(help="Wait until it answers.")] = True,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Deploy a model version."""
    with open_api(server) as api:
        identity = lookup.model_version_id(api, version)
        deployment = deploy_version(api, identity, name=name or _name_of(api, identity), device=device)
        if wait:
            deployment = wait_until_ready(api, deployment)
        emit(deployment, output, table=lambda made: _deployments([made]))


@app.command()
def undeploy(
    deployment: Annotated[str, typer.Argument(help="Name or id.")],
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Undeploy and wait until its server is gone."""
    with open_api(server) as api:
        found = undeploy_deployment(api, lookup.deployment_id(api, deployment))
        emit(found, output, table=lambda shown: _deployments([shown]))


@app.command()
def deployments(
    every: Annotated[bool, typer.Option("--all", help="Those that were stopped, too.")] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """List the deployments, newest first."""
    with open_api(server) as api:
        found = list(api.all("/api/v1/deployments", "deployments"))
        emit([item for item in found if every or item["state"] != f"{STATE}STOPPED"], output, table=_deployments)


def register_run(api: Api, name: str, run: str, *, description: str = "") -> dict[str, Any]:
    """Registers a finished run; the model is made when it does not exist."""
    existing = list(api.all("/api/v1/models", "models", name=name))
    model = existing[0] if existing else api.post("/api/v1/models", {"name": name, "description": description})
    return dict(api.post(f"/api/v1/models/{model['id']}/versions", {"run_id": run}))


def deploy_version(api: Api, version: str, *, name: str, device: str = "cpu") -> dict[str, Any]:
    """Deploys a version under a name; answers at once."""
    body = {"name": name, "model_version_id": version, "device": f"DEVICE_{device.upper()}"}
    return dict(api.post("/api/v1/deployments", body))


def wait_until_ready(api: Api, deployment: dict[str, Any]) -> dict[str, Any]:
    """Waits until a deployment answers. Raises ClientError with its message when it fails."""
    end = time.monotonic() + READY_SECONDS
    path = f"/api/v1/deployments/{deployment['id']}"
    while (found := api.get(path))["state"] != f"{STATE}READY":
        if found["state"] in {f"{STATE}FAILED", f"{STATE}STOPPED"} or time.monotonic() > end:
            raise ClientError(f"The deployment {found['name']} is not ready: {found['message'] or found['state']}")
        time.sleep(0.3)
    return dict(found)


def undeploy_deployment(api: Api, identity: str) -> dict[str, Any]:
    """Undeploys, and waits until the server is gone."""
    end = time.monotonic() + STOP_SECONDS
    found = api.post(f"/api/v1/deployments/{identity}:stop", {})
    while found["state"] != f"{STATE}STOPPED" and time.monotonic() < end:
        time.sleep(0.2)
        found = api.get(f"/api/v1/deployments/{identity}")
    return dict(found)


def _name_of(api: Api, version: str) -> str:
    found = api.get(f"/api/v1/model-versions/{version}")
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in found["model_name"].lower())
    name = f"{plain.strip('-')}-v{found['version']}"
    note(f"deploying as {name}")
    return name


def _models(models: list[dict[str, Any]]) -> Any:
    rows = [(item["id"], item["name"], item["latest_version"], age(item["create_time"])) for item in models]
    return table_of(("ID", "NAME", "VERSIONS", "AGE"), rows)


def _versions(found: list[dict[str, Any]]) -> Any:
    rows = [
        (
            item["id"],
            item["model_name"],
            item["version"],
            f"{item['parameters'] / 1e6:.1f} M",
            item["lineage"]["run_id"],
            item["lineage"]["step"],
            age(item["create_time"]),
        )
        for item in found
    ]
    return table_of(("ID", "MODEL", "VERSION", "PARAMETERS", "RUN", "STEP", "AGE"), rows)


def _deployments(found: list[dict[str, Any]]) -> Any:
    rows = [
        (item["id"], item["name"], word(item["state"], STATE), item["message"], age(item["create_time"]))
        for item in found
    ]
    return table_of(("ID", "NAME", "STATE", "", "AGE"), rows)
