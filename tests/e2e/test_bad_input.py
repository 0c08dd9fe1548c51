"""Every bad input gets a clear error that says what was wrong and where, and nothing is lost."""

import json
from typing import Any

import pytest
from platform_process import Api, Platform
from recipes import pretraining


def test_a_broken_row_is_named_by_line_field_and_what_was_expected(trainer: Api) -> None:
    rows: list[dict[str, Any]] = [{"instruction": f"Say {n}.", "output": f"{n}"} for n in range(10)]
    rows[6]["output"] = 7
    version = trainer.dataset("one broken row", train=rows)
    assert version["state"] == "DATASET_VERSION_STATE_REJECTED"
    file = version["files"][0]
    assert (file["rows"], file["accepted_rows"], file["rejected_rows"]) == (10, 9, 1)
    findings = trainer.get(f"/api/v1/training/dataset-versions/{version['id']}/findings")["findings"]
    errors = [f for f in findings if f["severity"] == "SEVERITY_ERROR"]
    assert [(f["line"], f["pointer"]) for f in errors] == [(7, "/output")]
    assert errors[0]["expected"]
    assert "7" in errors[0]["found"]


def test_a_rejected_dataset_trains_nothing(trainer: Api) -> None:
    version = trainer.dataset("not even text", train=[{"text": 5}])
    assert version["state"] == "DATASET_VERSION_STATE_REJECTED"
    refused = trainer.http.post(
        "/api/v1/training/runs", json={"name": "on a rejected dataset", "spec": pretraining(version["id"], max_steps=1)}
    )
    assert refused.status_code == 409
    assert "dataset" in refused.text


def test_a_run_that_cannot_be_planned_is_refused_with_every_reason_at_once(trainer: Api, corpus: str) -> None:
    spec = pretraining(corpus, learning_rate=-1)
    spec["base_model"]["scratch"]["num_attention_heads"] = 5
    spec["lora"] = {"lora_rank": 4}
    spec["deepspeed"] = {"enabled": False, "offload": "OFFLOAD_CPU"}
    fixed = {**spec, "hyperparameters": {**spec["hyperparameters"], "learning_rate": 0.001}}
    bounds = trainer.http.post("/api/v1/training/runs", json={"name": "bad bounds", "spec": spec})
    assert bounds.status_code == 400
    assert [v["field"] for v in bounds.json()["violations"]] == ["run.spec.hyperparameters.learning_rate"]
    plan = trainer.http.post("/api/v1/training/runs", json={"name": "bad plan", "spec": fixed})
    assert plan.status_code == 400
    assert len(plan.json()["violations"]) >= 3
    assert [r for r in trainer.get("/api/v1/training/runs")["runs"] if r["name"] in {"bad bounds", "bad plan"}] == []


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b'{"name": 1e999}',
        b'{"name": "\\ud800"}',
        b'{"name": "\\u0000"}',
        b"[" * 100_000,
        b'{"name": 1, "name": 2}',
        b"\xff",
    ],
)
def test_no_body_makes_the_platform_stumble(trainer: Api, body: bytes) -> None:
    answer = trainer.http.post("/api/v1/training/runs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in {400, 413}
    problem = answer.json()
    assert problem["detail"]
    assert problem["request_id"]


def test_somebody_elses_run_answers_like_one_that_does_not_exist(
    platform: Platform, admin: Api, trainer: Api, corpus: str
) -> None:
    run = trainer.start("mine", pretraining(corpus, max_steps=1))
    admin.call(
        "POST", "/api/v1/users", {"user": {"username": "otto", "roles": ["trainer"]}, "password": "another trainer's"}
    )
    other = platform.login("otto", "another trainer's")
    missing = "00000000-0000-4000-8000-000000000000"
    answers = [other.http.get(f"/api/v1/training/runs/{identity}") for identity in (run, missing)]
    assert [a.status_code for a in answers] == [404, 404]
    problems = [json.loads(a.text.replace(run, missing)) for a in answers]
    for problem in problems:
        problem.pop("request_id")
    assert problems[0] == problems[1]
    trainer.wait(run, "SUCCEEDED")


def test_a_viewer_may_look_but_not_start(platform: Platform, admin: Api, corpus: str) -> None:
    admin.call(
        "POST", "/api/v1/users", {"user": {"username": "vera", "roles": ["viewer"]}, "password": "a viewer's password"}
    )
    viewer = platform.login("vera", "a viewer's password")
    viewer.get("/api/v1/training/runs")
    refused = viewer.http.post("/api/v1/training/runs", json={"name": "no", "spec": pretraining(corpus, max_steps=1)})
    assert refused.status_code == 403
    assert "training.runs.create" in refused.text


def test_nobody_reads_anything_without_a_token(platform: Platform, trainer: Api) -> None:
    answer = trainer.http.get("/api/v1/training/runs", headers={"authorization": ""})
    assert answer.status_code == 401


def test_a_taken_port_is_named_with_the_setting(platform: Platform) -> None:
    second = Platform()
    try:
        second.port = platform.port
        done = second.command("up", check=False)
        assert done.returncode != 0
        assert str(platform.port) in done.stderr + done.stdout
        assert "ESPALIER_GATEWAY_PORT" in done.stderr + done.stdout
    finally:
        second.destroy()


def test_a_dataset_without_a_word_is_rejected(trainer: Api) -> None:
    version = trainer.dataset("empty rows", train=[{"text": ""}, {"text": " "}])
    assert version["state"] == "DATASET_VERSION_STATE_REJECTED"
    assert "none of them holds any text" in version["message"]
