"""One object of each kind that belongs to a user, made as he would make it."""

from dataclasses import dataclass, field
from typing import Any

from platform_process import Api, until
from recipes import pretraining

ROWS = [{"text": f"{n} and {n} make {2 * n}; that is {n} twice."} for n in range(60)]


@dataclass
class Belongings:
    """Ids by kind. `api` is signed in as the owner."""

    api: Api
    ids: dict[str, str] = field(default_factory=dict)


def everything_of(api: Api, *, mark: str) -> Belongings:
    """Makes a user's data, trains a model of a step on it, deploys it and talks to it; `mark` is in every name."""
    found = Belongings(api)
    ids = found.ids
    ids["upload"] = api.upload("rows.jsonl", b'{"text": "one two three"}\n')
    version = api.dataset(f"data {mark}", train=ROWS)
    ids["dataset_version"], ids["dataset"] = version["id"], version["dataset_id"]
    ids["run"] = api.start(f"run {mark}", pretraining(ids["dataset_version"], max_steps=1))
    ids["prompt"] = api.call("POST", "/api/v1/prompts", {"name": f"prompt {mark}", "text": f"Say {mark}."})["id"]
    items = [{"reference": f"six {mark}", "answer": "six"}]
    evaluation = {"name": f"evaluation {mark}", "items": items}
    ids["evaluation"] = api.call("POST", "/api/v1/evaluations", evaluation)["id"]
    ids["model"] = api.call("POST", "/api/v1/models", {"name": f"model-{mark}"})["id"]
    ids["login_session"] = api.get("/api/v1/me/sessions")["sessions"][0]["id"]
    ids["api_key"] = api.call("POST", "/api/v1/me/api-keys", {"name": f"key {mark}"})["id"]
    return found


def trained(owner: Belongings, *, mark: str) -> None:
    """Waits for the run, registers its model and deploys it."""
    api, ids = owner.api, owner.ids
    api.wait(ids["run"], "SUCCEEDED")
    made = api.call("POST", f"/api/v1/models/{ids['model']}/versions", {"run_id": ids["run"]})
    ids["model_version"] = made["id"]
    wanted = {"name": f"deployment-{mark}", "model_version_id": ids["model_version"]}
    ids["deployment"] = api.call("POST", "/api/v1/deployments", wanted)["id"]


def conversed(owner: Belongings, *, deployment_id: str, text: str) -> None:
    """Waits for the deployment and has a short conversation with it."""
    api, ids = owner.api, owner.ids

    def ready() -> dict[str, Any] | None:
        state = api.get(f"/api/v1/deployments/{deployment_id}")
        assert state["state"] != "DEPLOYMENT_STATE_FAILED", state["message"]
        return dict(state) if state["state"] == "DEPLOYMENT_STATE_READY" else None

    until(ready, seconds=300, what="the deployment")
    wanted = {"deployment_id": deployment_id, "system_prompt": text, "parameters": {"max_tokens": 2}}
    ids["chat_session"] = api.call("POST", "/api/v1/chat/sessions", wanted)["id"]
    path = f"/api/v1/chat/sessions/{ids['chat_session']}/messages"
    events = [data for event, _, data in api.events("POST", path, {"text": text}) if event == "message"]
    ids["message"] = events[-1]["message"]["id"]
