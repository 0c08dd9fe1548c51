"""Finds things by what people type: an id, the beginning of an id, or a name."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from espalier_client.api import Api
from espalier_client.errors import InvalidInput, NotFound, PermissionDenied

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def run_id(api: Api, reference: str) -> str:
    """Id of a run."""
    return _id(reference, "run", lambda: api.all("/api/v1/training/runs", "runs"))


def model_id(api: Api, reference: str) -> str:
    """Id of a model."""
    return _id(reference, "model", lambda: api.all("/api/v1/models", "models"))


def deployment_id(api: Api, reference: str) -> str:
    """Id of a deployment; of those with this name the newest that is not stopped, else the newest."""
    deployments = list(api.all("/api/v1/deployments", "deployments"))
    living = [item for item in deployments if item["state"] != "DEPLOYMENT_STATE_STOPPED"]
    if any(item["name"] == reference or item["id"].startswith(reference) for item in living):
        return _id(reference, "deployment", lambda: living)
    return _id(reference, "deployment", lambda: deployments)


def api_key_id(api: Api, reference: str) -> str:
    """Id of one of one's own API keys."""
    return _id(reference, "api-key", lambda: api.all("/api/v1/me/api-keys", "api_keys"))


def dataset_id(api: Api, reference: str) -> str:
    """Id of a dataset."""
    return _id(reference, "dataset", lambda: api.all("/api/v1/training/datasets", "datasets"))


def dataset_version_id(api: Api, reference: str) -> str:
    """Id of a dataset version: its id, or NAME for the newest version of a dataset, or NAME:2 for its second."""
    return _version_id(
        reference,
        "dataset",
        lambda name: api.all(f"/api/v1/training/datasets/{dataset_id(api, name)}/versions", "versions"),
    )


def model_version_id(api: Api, reference: str) -> str:
    """Id of a model version: its id, or NAME for the newest version of a model, or NAME:2 for its second."""
    return _version_id(
        reference, "model", lambda name: api.all(f"/api/v1/models/{model_id(api, name)}/versions", "versions")
    )


def user_id(api: Api, reference: str) -> str:
    """Id of a user, who is named by his username or id."""
    return _id(
        reference, "user", lambda: [{**one, "name": one["username"]} for one in api.all("/api/v1/users", "users")]
    )


def group_id(api: Api, reference: str) -> str:
    """Id of a group."""
    return _id(reference, "group", lambda: api.all("/api/v1/groups", "groups"))


def group_names(api: Api) -> dict[str, str]:
    """Names of groups by id; none for who may not list them."""
    try:
        return {str(group["id"]): str(group["name"]) for group in api.all("/api/v1/groups", "groups")}
    except PermissionDenied:
        return {}


def _version_id(reference: str, what: str, versions_of: Callable[[str], Iterable[Any]]) -> str:
    if UUID.fullmatch(reference):
        return reference
    name, _, number = reference.rpartition(":") if re.search(r":\d+$", reference) else (reference, "", "")
    wanted = [item for item in versions_of(name) if not number or item["version"] == int(number)]
    if not wanted:
        raise NotFound(f"The {what} {name!r} has no version{' ' + number if number else ' yet'}.")
    return str(max(wanted, key=lambda item: int(item["version"]))["id"])


def _id(reference: str, what: str, items: Any) -> str:
    if UUID.fullmatch(reference):
        return reference
    found: list[dict[str, Any]] = list(items())
    matches = [item for item in found if item["name"] == reference] or [
        item for item in found if len(reference) >= 4 and item["id"].startswith(reference)
    ]
    if not matches:
        listed = "models deployments" if what == "deployment" else f"{what}s list"
        raise NotFound(f"There is no {what} {reference!r}. `espalier {listed}` shows those that are there.")
    if len(matches) > 1:
        raise InvalidInput(f"{reference!r} may be any of {len(matches)} {what}s: {_some(matches)}. Give one's id.")
    return str(matches[0]["id"])


def _some(items: Iterable[dict[str, Any]]) -> str:
    ids = [str(item["id"]) for item in items]
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
