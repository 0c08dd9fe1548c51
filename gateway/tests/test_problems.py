"""Errors of the services as problem JSON."""

import pytest

from espalier_common import errors
from espalier_common.errors import FieldViolation
from espalier_common.rpc.status import DiskFull
from espalier_gateway.problems import STATUS_OF_CODE

from .fakes import RUN_ID
from .running import RunningGateway, StartGateway

PATH = f"/api/v1/training/runs/{RUN_ID}"


class RunNotFound(errors.NotFound):
    reason = "RUN_NOT_FOUND"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (errors.InvalidArgument("no", violations=[FieldViolation("a.b", "is bad")]), 400, "INVALID_ARGUMENT"),
        (errors.Unauthenticated("no"), 401, "UNAUTHENTICATED"),
        (errors.PermissionDenied("training.runs.fly"), 403, "PERMISSION_DENIED"),
        (RunNotFound("run", RUN_ID), 404, "RUN_NOT_FOUND"),
        (errors.AlreadyExists("no"), 409, "ALREADY_EXISTS"),
        (errors.Conflict("no"), 412, "CONFLICT"),
        (errors.FailedPrecondition("no"), 409, "FAILED_PRECONDITION"),
        (errors.ResourceExhausted("no", retry_after=1.2), 429, "RESOURCE_EXHAUSTED"),
        (errors.Unavailable("no", retry_after=3), 503, "UNAVAILABLE"),
        (errors.DeadlineExceeded("no"), 504, "DEADLINE_EXCEEDED"),
        (DiskFull("The disk is full."), 507, "DISK_FULL"),
        (RuntimeError("secret cause"), 500, "INTERNAL"),
    ],
)
async def test_each_error_has_its_status_and_its_reason(
    gateway: RunningGateway, error: Exception, status: int, reason: str
) -> None:
    gateway.fakes["runs"].error = error
    answer = await gateway.client_for().get(PATH, headers={"x-request-id": "my-id-1"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["reason"] == reason
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"] == "my-id-1"
    assert problem["type"].startswith("urn:espalier:problem:")
    assert problem["title"]
    assert "secret cause" not in answer.text


async def test_violations_and_retry_after_travel_along(gateway: RunningGateway) -> None:
    runs = gateway.fakes["runs"]
    runs.error = errors.InvalidArgument("no", violations=[FieldViolation("run.name", "is bad", "BAD")])
    answer = await gateway.client_for().get(PATH)
    assert answer.json()["violations"] == [{"field": "run.name", "description": "is bad", "reason": "BAD"}]
    runs.error = errors.ResourceExhausted("later", retry_after=1.2)
    answer = await gateway.client_for().get(PATH)
    assert answer.headers["retry-after"] == "2"


async def test_a_missing_permission_is_named(gateway: RunningGateway) -> None:
    answer = await gateway.client_for(permissions=("training.runs.list",)).get(PATH)
    assert answer.status_code == 403
    assert "training.runs.get" in answer.json()["detail"]
    assert answer.json()["metadata"]["permission"] == "training.runs.get"


async def test_who_is_not_signed_in_is_told_how(gateway: RunningGateway) -> None:
    answer = await gateway.client.get(PATH)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_service_that_is_down_is_503_and_one_that_is_not_configured_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(services={"training-orchestrator": "127.0.0.1:9"})
    answer = await gateway.client_for().get(PATH)
    assert (answer.status_code, answer.json()["reason"]) == (503, "UNAVAILABLE")
    assert answer.headers["retry-after"]
    answer = await gateway.client_for().get("/api/v1/models")
    assert (answer.status_code, answer.json()["reason"]) == (503, "SERVICE_NOT_CONFIGURED")
    assert "model-registry" in answer.json()["detail"]


async def test_an_rpc_that_the_running_service_lacks_is_501(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    services = {**gateway.settings.services, "eval": gateway.settings.services["auth"]}
    older = await start_gateway(services=services)
    answer = await older.client_for().get("/api/v1/evaluations")
    assert (answer.status_code, answer.json()["reason"]) == (501, "UNIMPLEMENTED")


def test_every_grpc_code_has_a_status() -> None:
    import grpc

    assert set(STATUS_OF_CODE) == {code.name for code in grpc.StatusCode} - {"OK"}


async def test_an_odd_request_id_is_replaced_and_a_sane_one_kept(gateway: RunningGateway) -> None:
    answer = await gateway.client.get("/healthz", headers={"x-request-id": "a b<script>"})
    assert answer.headers["x-request-id"] != "a b<script>"
    answer = await gateway.client_for().get(PATH, headers={"x-request-id": "trace-7"})
    assert answer.headers["x-request-id"] == "trace-7"
    assert gateway.fakes["runs"].metadata[0]["x-request-id"] == "trace-7"
