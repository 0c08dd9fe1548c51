"""Every change of every service stands in the audit log: who, what, on what, before and after, from where, the end."""

import json
from typing import Any

import pytest
from belongings import Belongings
from changes import CHANGES, Made, Stage
from google.protobuf.descriptor import MethodDescriptor
from platform_process import Api, Platform, until
from wire import all_rpcs

from espalier_common.audit.rule import rule_of
from espalier_gateway.contract import Binding, read_contract, service_name

# Changing by their HTTP method, and told when they are refused alone.
REFUSALS_ALONE = {
    "AuthService.Refresh": "each tab of each browser, every ten minutes; a token seen again is a refusal and told",
    "OidcService.StartOidcLogin": "a sign-in that only begins changes nothing; anybody can begin one",
    "RunService.PlanRun": "a dry run changes nothing",
}
# Without a route of their own: called in consequence of something that is told already, to read, or told always.
BETWEEN_SERVICES = {
    "ApiKeyService.ExchangeApiKey": "reads; the use of a key is kept with the key, and what it does is told",
    "GroupService.ListPeers": "reads",
    "OidcService.EndProviderSessions": "providers send a form; told always: services/auth/tests/oidc",
    "AuthService.IssueServiceToken": "each service's own, every few minutes; a wrong secret is a refusal and told",
    "RevocationService.ListRevocations": "reads, every other second",
    "CompletionService.CreateCompletion": "keeps nothing but what it used, in the ledger; a refusal is told",
    "QuotaService.ReserveUsage": "follows a run or a message, which is told; over quota is a refusal and told",
    "DeploymentService.ResolveEndpoint": "reads",
    "RunnerService.RegisterAttempt": "follows a run, which is told",
    "RunnerService.Heartbeat": "follows a run, which is told",
    "WorkloadService.CreateWorkload": "follows a deployment, which is told",
    "WorkloadService.GetWorkload": "reads",
    "WorkloadService.DeleteWorkload": "follows a deployment, which is told",
}
# Cannot be called on this platform; where their events are looked at instead.
ELSEWHERE = {
    "OidcService.FinishOidcLogin": "needs a provider: services/auth/tests/oidc",
    "OidcService.LinkIdentity": "needs a provider: services/auth/tests/oidc",
    "OidcService.UnlinkIdentity": "needs a provider: services/auth/tests/oidc",
    "RegistrationService.ForgotPassword": "needs a mail server: services/auth/tests/test_registration.py",
}
# What they change is told in `after` by the request alone: no row that tells more is there before.
NOTHING_BEFORE = ("Create", "Begin", "Register", "Login", "SendMessage", "ResetPassword")
# Ended or nothing to end: the call is told, though nothing changed.
UNCHANGED = {"ChatService.StopMessage", "SessionService.EndMyOtherSessions", "RunService.ResumeRun"}


def name_of(rpc: MethodDescriptor) -> str:
    return f"{rpc.containing_service.name}.{rpc.name}"


def told() -> list[Binding]:
    """The RPCs whose every call is told."""
    return [each for each in read_contract() if each.method != "GET" and rule_of(each.rpc).tells]


@pytest.fixture(scope="module")
def stage(platform: Platform, owners: tuple[Belongings, Belongings]) -> Stage:
    return Stage(platform, owners[0])


def test_what_is_not_told_is_named_with_a_reason() -> None:
    routed = {name_of(each.rpc): each for each in read_contract()}
    quiet = {name for name, each in routed.items() if each.method != "GET" and not rule_of(each.rpc).tells}
    assert quiet == REFUSALS_ALONE.keys()
    assert {name_of(rpc) for rpc in all_rpcs()} - routed.keys() == BETWEEN_SERVICES.keys()
    assert {name_of(each.rpc) for each in told()} == CHANGES.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize(
    "binding", [each for each in told() if name_of(each.rpc) in CHANGES], ids=lambda b: name_of(b.rpc)
)
def test_a_change_is_told_whole(stage: Stage, admin: Api, binding: Binding) -> None:
    name = name_of(binding.rpc)
    made = CHANGES[name](stage)
    assert made.answer.is_success is (made.result == "DONE"), made.answer.text

    event = event_of(admin, made)
    assert event["action"] == rule_of(binding.rpc).action
    assert event["service"] == service_name(binding.rpc.containing_service)
    assert (event["actor_id"], event["result"]) == (made.by, f"AUDIT_RESULT_{made.result}")
    assert event["actor_name"] or not made.by
    assert event["address"] == "127.0.0.1"
    assert event["target"] in target_of(made)
    if name in UNCHANGED:
        return
    assert json.loads(event["after"] or event["before"])
    if binding.method in {"PATCH", "DELETE"} or not binding.rpc.name.startswith(NOTHING_BEFORE):
        assert json.loads(event["before"])
        assert event["before"] != event["after"]
    assert "password_tries" not in event["after"]


def event_of(admin: Api, made: Made) -> dict[str, Any]:
    """The one event of a call, once it has arrived."""
    request_id = made.answer.headers["x-request-id"]

    def arrived() -> dict[str, Any] | None:
        found = admin.get("/api/v1/audit-events", request_id=request_id)["events"]
        assert len(found) < 2, found
        return dict(found[0]) if found else None

    return until(arrived, what=f"the event of request {request_id}")


def target_of(made: Made) -> set[str]:
    """What the call is about: its address without the verb, and the id or name of what it made."""
    path = made.answer.request.url.path.removeprefix("/api/v1/").rpartition(":")[0] or (
        made.answer.request.url.path.removeprefix("/api/v1/")
    )
    content = made.answer.headers["content-type"]
    answer = made.answer.json() if made.answer.is_success and content == "application/json" else {}
    return {path, *(f"{path}/{answer[name]}" for name in ("id", "name") if name in answer)}
