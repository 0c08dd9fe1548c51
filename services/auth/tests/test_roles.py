"""What each built-in role may do, over the permissions of the real contract."""

import pytest

from espalier_auth.roles import Roles
from espalier_common.identity import Principal, Scope
from espalier_common.rpc.permissions import all_permissions

ALL = [permission.name for permission in all_permissions()]


@pytest.fixture
def roles() -> Roles:
    return Roles(ALL)


def test_the_contract_has_permissions_of_every_service() -> None:
    assert {name.partition(".")[0] for name in ALL} >= {"auth", "chat", "eval", "models", "prompt", "training"}


def test_nobody_but_an_admin_manages_users_or_runs_bare_workloads(roles: Roles) -> None:
    reads = {"auth.users.get", "auth.users.list"}
    for role in roles.all()[1:]:
        reserved = [name for name in role.permissions if name.startswith(("auth.users.", "training.workloads."))]
        assert set(reserved) <= (reads if role.name == "auditor" else set())


def test_a_viewer_reads_everything_and_changes_nothing(roles: Roles) -> None:
    rights = roles.rights(["viewer"])

    assert rights.scope == "all"
    assert {name.rpartition(".")[2] for name in rights.permissions} == {"get", "list"}
    assert {"training.runs.get", "chat.sessions.list", "prompt.prompts.get"} <= rights.permissions


def test_a_tester_chats_and_evaluates_and_does_not_train(roles: Roles) -> None:
    rights = roles.rights(["tester"])

    assert rights.scope == "own"
    assert {"chat.messages.create", "eval.evaluations.create"} <= rights.permissions
    assert {f"models.deployments.{verb}" for verb in ("get", "list", "use")} <= rights.permissions
    assert {"models.models.get", "models.models.list", "models.versions.get"} <= rights.permissions
    assert not {"training.runs.create", "prompt.prompts.create", "models.deployments.create"} & rights.permissions


def test_a_trainer_does_what_a_tester_does_and_trains(roles: Roles) -> None:
    trainer, tester = roles.rights(["trainer"]), roles.rights(["tester"])

    assert trainer.permissions > tester.permissions
    assert {"training.runs.create", "training.runs.stop", "models.versions.create"} <= trainer.permissions


def test_several_roles_together_have_the_union_and_the_widest_reach(roles: Roles) -> None:
    both = roles.rights(["trainer", "viewer"])

    assert both.scope == "all"
    assert both.permissions == roles.rights(["trainer"]).permissions | roles.rights(["viewer"]).permissions


def test_an_admin_has_everything_in_one_word(roles: Roles) -> None:
    assert roles.rights(["admin", "viewer"]).permissions == {"*"}


def test_no_role_and_an_unknown_role_give_nothing(roles: Roles) -> None:
    assert roles.rights([]).permissions == roles.rights(["root"]).permissions == frozenset()
    assert roles.rights([]).scope == "own"


def test_a_service_has_only_what_it_needs_in_its_own_name(roles: Roles) -> None:
    registry = roles.service_rights("model-registry").permissions
    every = {"auth.revocations.list"}

    workloads = {name for name in ALL if name.startswith("training.workloads.")}
    assert registry == workloads | {"training.runs.get", "auth.usage.reserve"} | every
    assert roles.service_rights("chat").permissions == {"models.deployments.use", "auth.usage.reserve"} | every
    assert roles.service_rights("eval").permissions == every


@pytest.mark.parametrize(
    ("permissions", "scope", "role", "named"),
    [
        (["*"], "all", "admin", []),
        (["*"], "own", "admin", ["*"]),
        (ALL, "all", "admin", ["*"]),
        (ALL, "own", "trainer", []),
        (ALL, "own", "viewer", ["models.deployments.get", "training.runs.list"]),
        (["training.*"], "all", "trainer", ["chat.sessions.create", "models.deployments.create"]),
    ],
)
def test_a_role_names_what_reaches_further_than_the_caller_does(
    roles: Roles, permissions: list[str], scope: Scope, role: str, named: list[str]
) -> None:
    caller = Principal("u", "u", "user", (), frozenset(permissions), scope)
    found = roles.find(role)

    assert found is not None
    assert set(named) <= set(found.beyond(caller))
    assert bool(named) is bool(found.beyond(caller))
