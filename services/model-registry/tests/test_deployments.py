"""Deployments: what the reconciler does about what users ask for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from espalier.model_registry.v1 import events_pb2
from espalier.model_registry.v1 import resources_pb2 as pb
from espalier.training_orchestrator.v1 import events_pb2 as orchestrator_events_pb2
from espalier.training_orchestrator.v1 import workload_pb2
from espalier_common.bus import Event
from espalier_common.db import Database, new_id, utc_now
from espalier_common.errors import FailedPrecondition, Unavailable
from espalier_common.identity import Principal
from espalier_common.tables import outbox
from espalier_model_registry.events import WORKLOAD_STATE_CHANGED, on_workloads_changed
from espalier_model_registry.models import Deployment, DeploymentState, ModelVersion
from espalier_model_registry.reconciler import Reconciler
from espalier_model_registry.servers import ServerState
from espalier_model_registry.service import Registry

ADA = Principal("ada", "Ada", "user", (), frozenset({"models.*"}), "own")
Steps = Callable[..., Deployment]


@pytest.fixture
def deployment(database: Database, registry: Registry, version: ModelVersion) -> Deployment:
    with database.transaction() as session:
        return registry.deploy(session, ADA, name="tuned-1", version_id=version.id, device="cpu")


@pytest.fixture
def step(database: Database, reconciler: Reconciler, deployment: Deployment) -> Steps:
    """Has the deployment looked at now, some times; gives it as it is then."""

    def take(times: int = 1, by: Reconciler = reconciler) -> Deployment:
        for _ in range(times):
            with database.transaction() as session:
                row = session.get_one(Deployment, deployment.id)
                if row.check_at is not None:
                    row.wake()
            by.reconcile()
        with database.transaction() as session:
            return session.get_one(Deployment, deployment.id)

    return take


def stop(database: Database, registry: Registry, deployment: Deployment) -> Deployment:
    with database.transaction() as session:
        return registry.undeploy(session, ADA, deployment.id)


def ready(step: Steps, servers: Any) -> Deployment:
    found = step()
    servers.put(found.workload_name, ServerState.READY)
    return step()


def test_a_deployment_is_launched_loads_and_answers(step: Steps, servers: Any) -> None:
    started = step()
    assert started.state is DeploymentState.STARTING
    assert servers.launches == [f"deployment-{started.id}"]
    servers.put(started.workload_name, ServerState.STARTING, reason="LOADING", message="Reads 3 of 7 files.")
    assert step().message == "Reads 3 of 7 files."
    servers.put(started.workload_name, ServerState.READY)
    answered = step()
    assert (answered.state, answered.base_url) == (DeploymentState.READY, "http://127.0.0.1:9000/v1")
    assert answered.ready_at is not None
    step(3)
    assert len(servers.launches) == 1


def test_a_server_launched_before_a_crash_of_the_registry_is_adopted(step: Steps, servers: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("espalier_model_registry.reconciler.conclude", die)
        with pytest.raises(KeyboardInterrupt):
            step()
    assert step().state is DeploymentState.STARTING
    assert len(servers.launches) == 1


def die(*_: object) -> None:
    raise KeyboardInterrupt


def test_while_the_orchestrator_is_away_a_deployment_waits_and_says_so(step: Steps, servers: Any) -> None:
    servers.error = Unavailable("connection refused to 10.0.0.7")
    began = utc_now()
    waiting = step(3)
    assert (waiting.state, waiting.reason, waiting.failures) == (DeploymentState.PENDING, "UNAVAILABLE", 3)
    assert "does not answer" in waiting.message
    assert "10.0.0.7" not in waiting.message
    assert waiting.check_at is not None
    assert waiting.check_at - began > timedelta(seconds=1)
    assert waiting.check_at - utc_now() < timedelta(seconds=31)
    servers.error = None
    assert step().state is DeploymentState.STARTING


def test_a_ready_deployment_stays_ready_while_the_orchestrator_is_away(step: Steps, servers: Any) -> None:
    ready(step, servers)
    servers.error = Unavailable("away")
    kept = step()
    assert (kept.state, kept.message) == (DeploymentState.READY, "Answers.")
    assert kept.base_url


def test_what_the_orchestrator_refuses_has_failed_with_its_reason(step: Steps, servers: Any) -> None:
    servers.error = FailedPrecondition("The model directory has no config.json.")
    failed = step()
    assert (failed.state, failed.reason) == (DeploymentState.FAILED, "FAILED_PRECONDITION")
    assert failed.message == "The model directory has no config.json."


def test_a_server_that_ends_by_its_own_fault_fails_its_deployment(step: Steps, servers: Any) -> None:
    name = ready(step, servers).workload_name
    servers.put(name, ServerState.FAILED, reason="OUT_OF_MEMORY_OR_KILLED", message="The server ran out of memory.")
    failed = step()
    assert (failed.state, failed.reason) == (DeploymentState.FAILED, "OUT_OF_MEMORY_OR_KILLED")
    assert failed.message == "The server ran out of memory."
    assert failed.base_url == ""
    cleaned = step()
    assert name not in servers.servers
    assert (cleaned.check_at, cleaned.message) == (None, "The server ran out of memory.")


def test_a_server_that_dies_while_it_loads_is_not_launched_again(step: Steps, servers: Any) -> None:
    name = step().workload_name
    servers.put(name, ServerState.FAILED, reason="PROCESS_DIED", message="The server died: bad weights.")
    assert step().state is DeploymentState.FAILED
    assert len(servers.launches) == 1


@pytest.mark.parametrize("gone", [True, False])
def test_after_a_restart_of_the_platform_it_is_launched_again(
    step: Steps, servers: Any, new_reconciler: Any, gone: bool
) -> None:
    name = ready(step, servers).workload_name
    servers.servers.clear()
    if not gone:
        servers.put(name, ServerState.FAILED, reason="PROCESS_DIED", message="The server was killed.")
    restarted = new_reconciler()
    step(3, by=restarted)
    assert servers.launches == [name, name]
    servers.put(name, ServerState.READY)
    assert step(by=restarted).state is DeploymentState.READY


def test_one_that_was_still_loading_at_the_restart_is_launched_again_too(
    step: Steps, servers: Any, new_reconciler: Any
) -> None:
    name = step().workload_name
    servers.put(name, ServerState.FAILED, reason="PROCESS_DIED", message="The server was killed.")
    assert step(3, by=new_reconciler()).state is DeploymentState.STARTING
    assert servers.launches == [name, name]


def test_a_server_that_is_lost_again_and_again_is_given_up(step: Steps, servers: Any) -> None:
    name = ready(step, servers).workload_name
    for _ in range(4):
        servers.put(name, ServerState.FAILED, reason="PROCESS_DIED", message="The server was killed.")
        lost = step(3)
        if lost.state is DeploymentState.STARTING:
            servers.put(name, ServerState.READY)
            step()
    assert (lost.state, lost.reason) == (DeploymentState.FAILED, "PROCESS_DIED")
    assert "3 times within 10 minutes" in lost.message
    assert len(servers.launches) == 4


def test_undeploying_ends_when_the_server_is_gone(
    step: Steps, servers: Any, database: Database, registry: Registry, deployment: Deployment
) -> None:
    ready(step, servers)
    servers.removal_takes = 1
    assert stop(database, registry, deployment).state is DeploymentState.STOPPING
    assert step().state is DeploymentState.STOPPING
    stopped = step()
    assert (stopped.state, stopped.reason, stopped.check_at) == (DeploymentState.STOPPED, "STOPPED_BY_USER", None)
    assert not servers.servers
    assert stop(database, registry, deployment).state is DeploymentState.STOPPED


def test_undeploying_waits_for_an_orchestrator_that_is_away(
    step: Steps, servers: Any, database: Database, registry: Registry, deployment: Deployment
) -> None:
    ready(step, servers)
    stop(database, registry, deployment)
    servers.error = Unavailable("away")
    waiting = step()
    assert (waiting.state, waiting.reason) == (DeploymentState.STOPPING, "UNAVAILABLE")
    servers.error = None
    assert step().state is DeploymentState.STOPPED


def test_a_stop_that_comes_while_it_is_launched_wins(
    step: Steps, servers: Any, database: Database, registry: Registry, deployment: Deployment
) -> None:
    launch = servers.launch

    def stop_meanwhile(**wanted: Any) -> Any:
        stop(database, registry, deployment)
        return launch(**wanted)

    servers.launch = stop_meanwhile
    assert step().state is DeploymentState.STOPPING
    assert step().state is DeploymentState.STOPPED
    assert not servers.servers


def test_a_defect_with_one_deployment_holds_up_no_other(
    step: Steps, servers: Any, database: Database, registry: Registry, version: ModelVersion, deployment: Deployment
) -> None:
    with database.transaction() as session:
        other = registry.deploy(session, ADA, name="tuned-2", version_id=version.id, device="cpu")
    find = servers.find

    def broken(name: str) -> Any:
        if name == deployment.workload_name:
            raise RuntimeError("a defect")
        return find(name)

    servers.find = broken
    began = utc_now()
    later = step()
    assert servers.launches == [other.workload_name]
    assert later.check_at is not None
    assert later.check_at > began + timedelta(seconds=20)


def test_two_reconcilers_never_work_on_one_deployment(step: Steps, servers: Any, new_reconciler: Any) -> None:
    other, find = new_reconciler(), servers.find
    pauses = []

    def find_and_let_the_other_try(name: str) -> Any:
        servers.find = find
        pauses.append(other.reconcile())
        return find(name)

    servers.find = find_and_let_the_other_try
    assert step().state is DeploymentState.STARTING
    assert pauses == [0.5]
    assert len(servers.launches) == 1


async def test_an_event_of_its_server_makes_it_due_and_others_do_nothing(
    step: Steps, servers: Any, database: Database, deployment: Deployment
) -> None:
    ready(step, servers)
    with database.transaction() as session:
        session.get_one(Deployment, deployment.id).check_at = utc_now() + timedelta(hours=1)
    with database.subscribe("deployments") as subscription:
        for name in (f"deployment-{new_id()}", "deployment-x", "something-else"):
            tell_of_workload(database, name)
        assert not await subscription.wait(0.05)
        tell_of_workload(database, deployment.workload_name)
        assert await subscription.wait(60)
    with database.transaction() as session:
        due = session.get_one(Deployment, deployment.id).check_at
    assert due is not None
    assert due <= utc_now()


def tell_of_workload(database: Database, name: str) -> None:
    changed = orchestrator_events_pb2.WorkloadStateChanged(workload=workload_pb2.Workload(name=name))
    event = Event(WORKLOAD_STATE_CHANGED, changed.SerializeToString(), new_id(), utc_now(), {})
    with database.transaction() as session:
        on_workloads_changed(session, [event])


def test_each_change_of_state_is_told_to_the_others(
    step: Steps, servers: Any, database: Database, registry: Registry, deployment: Deployment
) -> None:
    ready(step, servers)
    stop(database, registry, deployment)
    step()
    kind = events_pb2.DeploymentStateChanged
    statement = select(outbox.c.payload).where(outbox.c.subject == kind.DESCRIPTOR.full_name)
    with database.transaction() as session:
        events = [kind.FromString(bytes(row)) for row in session.scalars(statement.order_by(outbox.c.sequence))]
    names = [pb.DeploymentState.Name(event.to).removeprefix("DEPLOYMENT_STATE_") for event in events]
    assert names == ["STARTING", "READY", "STOPPING", "STOPPED"]
    assert {event.deployment_id for event in events} == {deployment.id}


def test_a_server_runs_for_who_deployed_it_also_one_of_which_the_orchestrator_did_not_know_that(
    step: Steps, servers: Any
) -> None:
    name = ready(step, servers).workload_name
    assert servers.owners == {name: "ada"}

    servers.owners.clear()
    servers.servers[name] = replace(servers.servers[name], has_owner=False)
    assert step().state is DeploymentState.READY
    assert (servers.owners, servers.launches) == ({name: "ada"}, [name])
