"""The main job: login → upload → train → stop → resume → register → deploy → chat, on a running platform."""

from typing import Any

import pytest
from platform_process import Api, Platform, until
from recipes import pretraining, tuning

# Enough that a stop, which takes a heartbeat or two to arrive, finds the run still training.
STEPS, TUNING_STEPS = 400, 150
STOP_AT = 5


@pytest.fixture(scope="module")
def uninterrupted(trainer: Api, corpus: str) -> str:
    run = trainer.start("uninterrupted", pretraining(corpus, max_steps=STEPS))
    trainer.wait(run, "SUCCEEDED")
    return run


@pytest.fixture(scope="module")
def tuned(trainer: Api, questions: str, uninterrupted: str) -> str:
    """A LoRA run on two ranks that was stopped in the middle with "save" and resumed."""
    run = trainer.start("tuned", tuning(questions, uninterrupted, max_steps=TUNING_STEPS))
    stop_and_resume(trainer, run)
    return run


def stop_and_resume(api: Api, run: str) -> None:
    api.wait_for_step(run, STOP_AT)
    api.call("POST", f"/api/v1/training/runs/{run}:stop", {"mode": "STOP_MODE_SAVE"})
    stopped = api.wait(run, "STOPPED")
    assert stopped["resumable"], stopped["message"]
    api.call("POST", f"/api/v1/training/runs/{run}:resume", {})
    api.wait(run, "SUCCEEDED")


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(trainer: Api, corpus: str, uninterrupted: str) -> None:
    run = trainer.start("stopped and resumed", pretraining(corpus, max_steps=STEPS))
    stop_and_resume(trainer, run)
    expected, found = trainer.losses(uninterrupted), trainer.losses(run)
    assert sorted(found) == sorted(expected) == list(range(1, STEPS + 1))
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-4


def test_a_run_under_deepspeed_resumes_from_the_step_it_stopped_at(trainer: Api, tuned: str) -> None:
    first, second = trainer.get(f"/api/v1/training/runs/{tuned}/attempts")["attempts"]
    assert first["reason"] == "STOPPED_BY_USER"
    assert second["resumed_from_step"] == first["last_step"] >= STOP_AT
    assert sorted(trainer.losses(tuned)) == list(range(1, TUNING_STEPS + 1))


def test_training_learns(trainer: Api, uninterrupted: str) -> None:
    losses = trainer.losses(uninterrupted)
    assert losses[STEPS] < 0.8 * losses[1]


def test_a_watcher_sees_every_step_once_also_after_a_cut(trainer: Api, uninterrupted: str) -> None:
    path = f"/api/v1/training/runs/{uninterrupted}:watch"
    seen: list[int] = []
    cursor = ""
    for _, identity, answer in trainer.events("GET", path):
        cursor = identity
        seen += [point["step"] for point in answer["points"] if "train/loss" in point["values"]]
        if len(seen) >= STEPS // 2:
            break
    for event, _, answer in trainer.events("GET", path, **{"last-event-id": cursor}):
        if event == "message":
            seen += [point["step"] for point in answer["points"] if "train/loss" in point["values"]]
    assert seen == list(range(1, STEPS + 1))


def test_each_rank_has_its_log(trainer: Api, tuned: str) -> None:
    for rank in (0, 1):
        chunk = trainer.get(f"/api/v1/training/runs/{tuned}/logs", attempt=1, rank=rank)
        assert chunk["offset"] == 0
        assert chunk["next_offset"] > 0


@pytest.fixture(scope="module")
def deployment(trainer: Api, tuned: str, uninterrupted: str) -> dict[str, Any]:
    base = register(trainer, "sums base", uninterrupted)
    version = register(trainer, "sums", tuned)
    assert version["lineage"]["run_id"] == tuned
    assert version["lineage"]["base_run_id"] == uninterrupted
    assert version["lineage"]["base_model_version_id"] == base["id"]
    created = trainer.call("POST", "/api/v1/deployments", {"name": "sums", "model_version_id": version["id"]})

    def ready() -> dict[str, Any] | None:
        found = trainer.get(f"/api/v1/deployments/{created['id']}")
        assert found["state"] != "DEPLOYMENT_STATE_FAILED", found["message"]
        return dict(found) if found["state"] == "DEPLOYMENT_STATE_READY" else None

    return until(ready, seconds=300, what="the deployment")


def register(api: Api, name: str, run: str) -> dict[str, Any]:
    model = api.call("POST", "/api/v1/models", {"name": name})
    version = api.call("POST", f"/api/v1/models/{model['id']}/versions", {"run_id": run})
    again = api.call("POST", f"/api/v1/models/{model['id']}/versions", {"run_id": run})
    assert again["id"] == version["id"]
    return dict(version)


def test_the_tuned_model_answers_as_a_stream(trainer: Api, deployment: dict[str, Any]) -> None:
    session = trainer.call(
        "POST",
        "/api/v1/chat/sessions",
        {"deployment_id": deployment["id"], "parameters": {"max_tokens": 24, "temperature": 0}},
    )
    path = f"/api/v1/chat/sessions/{session['id']}/messages"
    deltas = [
        data for event, _, data in trainer.events("POST", path, {"text": "What do 3 and 4 make?"}) if event == "message"
    ]
    message = deltas[-1]["message"]
    assert message["state"] == "MESSAGE_STATE_COMPLETE", message["error"]
    assert "".join(delta["text"] for delta in deltas) == message["text"]
    assert 0 < message["completion_tokens"] <= 24
    kept = trainer.get(path)["messages"]
    assert [(m["role"], m["text"]) for m in kept] == [
        ("ROLE_USER", "What do 3 and 4 make?"),
        ("ROLE_ASSISTANT", message["text"]),
    ]


def test_an_answer_is_kept_when_its_reader_goes_away(trainer: Api, deployment: dict[str, Any]) -> None:
    session = trainer.call(
        "POST", "/api/v1/chat/sessions", {"deployment_id": deployment["id"], "parameters": {"max_tokens": 40}}
    )
    path = f"/api/v1/chat/sessions/{session['id']}/messages"
    for _, _, delta in trainer.events("POST", path, {"text": "Count."}):
        message_id = delta["message_id"]
        break
    deltas = [d for event, _, d in trainer.events("GET", f"{path}/{message_id}:stream") if event == "message"]
    whole = deltas[-1]["message"]
    assert whole["state"] == "MESSAGE_STATE_COMPLETE", whole["error"]
    assert "".join(delta["text"] for delta in deltas) == whole["text"]


def test_a_tester_talks_to_what_a_trainer_deployed(platform: Platform, admin: Api, deployment: dict[str, Any]) -> None:
    user = {"username": "tess", "roles": ["tester"]}
    admin.call("POST", "/api/v1/users", {"user": user, "password": "a tester's password"})
    tester = platform.login("tess", "a tester's password")
    parameters = {"max_tokens": 4}
    session = tester.call(
        "POST", "/api/v1/chat/sessions", {"deployment_id": deployment["id"], "parameters": parameters}
    )
    path = f"/api/v1/chat/sessions/{session['id']}/messages"
    deltas = [data for event, _, data in tester.events("POST", path, {"text": "Hello"}) if event == "message"]
    assert deltas[-1]["message"]["state"] == "MESSAGE_STATE_COMPLETE"
    assert admin.http.get(path).status_code == 404, "a conversation is its owner's alone"
    assert tester.http.post(f"/api/v1/deployments/{deployment['id']}:stop", json={}).status_code == 403


def test_an_undeployed_model_no_longer_answers(trainer: Api, deployment: dict[str, Any]) -> None:
    trainer.call("POST", f"/api/v1/deployments/{deployment['id']}:stop", {})

    def stopped() -> bool | None:
        state = trainer.get(f"/api/v1/deployments/{deployment['id']}")["state"]
        return True if state == "DEPLOYMENT_STATE_STOPPED" else None

    until(stopped, what="the end of the deployment")
    wanted = {"group_by": ["source", "model"], "kind": "USAGE_KIND_CPU_SECONDS"}

    def told() -> float | None:
        rows = trainer.get("/api/v1/me/usage", **wanted)["rows"]
        amounts = [row["amount"] for row in rows if (row["source"], row["model"]) == ("serving", "sums")]
        return amounts[0] if amounts else None

    assert until(told, what="the server's time in the ledger of who deployed it") > 0
    session = trainer.call("POST", "/api/v1/chat/sessions", {"deployment_id": deployment["id"]})
    answer = trainer.http.post(f"/api/v1/chat/sessions/{session['id']}/messages", json={"text": "Are you there?"})
    assert answer.status_code == 409
    assert answer.json()["detail"]
