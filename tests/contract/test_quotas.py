"""Quotas between the services: the real auth, chat and orchestrator in this process, with real PostgreSQL and NATS."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from aiohttp import web
from pydantic import SecretStr

from espalier.auth.v1 import resources_pb2, service_pb2, service_pb2_grpc, usage_pb2, usage_pb2_grpc
from espalier.chat.v1 import service_pb2 as chat_pb2
from espalier.chat.v1 import service_pb2_grpc as chat_pb2_grpc
from espalier.model_registry.v1 import service_pb2 as registry_pb2
from espalier.model_registry.v1 import service_pb2_grpc as registry_pb2_grpc
from espalier.training_orchestrator.v1 import (
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    run_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
)
from espalier_auth.assembly import build as build_auth
from espalier_auth.settings import AuthSettings
from espalier_chat.__main__ import build as build_chat
from espalier_chat.settings import ChatSettings
from espalier_common.bus import Bus
from espalier_common.db import Database, new_id, utc_now
from espalier_common.identity import ServiceIdentity
from espalier_common.outbox import OutboxRelay
from espalier_common.quotas import Limits
from espalier_common.rpc.server import RunningService, Service, start
from espalier_common.rpc.status import from_rpc_error
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.assembly import assemble
from espalier_training_orchestrator.events import publish
from espalier_training_orchestrator.launchers import open_launcher
from espalier_training_orchestrator.rpc import servicers
from espalier_training_orchestrator.settings import TrainingOrchestratorSettings

PASSWORD = "a quiet green lamp"
SECRETS = {"chat": "secret-of-chat", "training-orchestrator": "secret-of-the-orchestrator"}


@dataclass
class Platform:
    """The services that run, and the calls that the tests make."""

    auth: RunningService
    database_url: Callable[[str], str]
    nats_url: str
    home: Path
    running: list[Any] = field(default_factory=list)

    @property
    def auth_address(self) -> str:
        return f"127.0.0.1:{self.auth.port}"

    def channel(self, address: str, token: str = "") -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(address, interceptors=[_Unary(token), _Stream(token)] if token else [])
        self.running.append(channel.close)
        return channel

    async def sign_in(self, username: str, password: str = PASSWORD) -> str:
        stub = service_pb2_grpc.AuthServiceStub(self.channel(self.auth_address))
        pair = await stub.Login(service_pb2.LoginRequest(username=username, password=password))
        return str(pair.access_token)

    async def person(self, username: str, role: str) -> tuple[str, str]:
        """Id and token of a new user."""
        users = service_pb2_grpc.UserServiceStub(self.channel(self.auth_address, await self.sign_in("admin")))
        user = resources_pb2.User(username=username, roles=[role])
        made = await users.CreateUser(service_pb2.CreateUserRequest(user=user, password=PASSWORD))
        return made.id, await self.sign_in(username)

    async def quotas(self) -> Any:
        return usage_pb2_grpc.QuotaServiceStub(self.channel(self.auth_address, await self.sign_in("admin")))

    def settings(self, name: str, package: str, **more: Any) -> dict[str, Any]:
        return {
            "listen": "127.0.0.1:0",
            "database_url": self.database_url(package),
            "nats_url": self.nats_url,
            "service_secret": SECRETS[name],
            "artifacts_url": f"file://{self.home}/artifacts",
            "services": {"auth": self.auth_address} | more,
        }

    async def serve(self, service: Service) -> str:
        """Address of a service that is stopped after the test."""
        running = await start(service)
        self.running.append(lambda: running.stop(grace=0))
        return f"127.0.0.1:{running.port}"


@pytest.fixture
async def platform(migrated_database: Any, nats_url: str, tmp_path: Path) -> AsyncIterator[Platform]:
    def database_url(package: str) -> str:
        return str(migrated_database(package).engine.url.render_as_string(hide_password=False))

    settings = AuthSettings(
        listen="127.0.0.1:0",
        database_url=database_url("espalier_auth"),
        nats_url=nats_url,
        master_key=SecretStr(secrets.token_hex(32)),
        home=tmp_path,
        admin_password=SecretStr(PASSWORD),
        service_secret_hashes={name: hashlib.sha256(word.encode()).hexdigest() for name, word in SECRETS.items()},
    )
    service = build_auth(settings)
    for prepare in service.on_start:
        prepare()
    platform = Platform(await start(service), database_url, nats_url, tmp_path)
    yield platform
    for stop in reversed(platform.running):
        await stop()
    await platform.auth.stop(grace=0)


class _Bearer:
    def __init__(self, token: str) -> None:
        self._metadata = grpc.aio.Metadata(("authorization", f"Bearer {token}"))

    def _signed(self, details: Any) -> grpc.aio.ClientCallDetails:
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, self._metadata, details.credentials, details.wait_for_ready
        )


class _Unary(_Bearer, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)


class _Stream(_Bearer, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)


async def refusal(call: Awaitable[Any]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await look():
            await asyncio.sleep(0.05)


@dataclass
class Registry(registry_pb2_grpc.DeploymentServiceServicer):
    """DeploymentService as chat uses it, over a model server that answers with 15 tokens for one of 10."""

    base_url: str

    async def ResolveEndpoint(self, request: Any, context: Any) -> registry_pb2.Endpoint:
        return registry_pb2.Endpoint(base_url=self.base_url, model="tuned-1")


async def _answer(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    usage = {"prompt_tokens": 10, "completion_tokens": 15}
    for chunk in (
        {"choices": [{"index": 0, "delta": {"content": "Yes."}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
    ):
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def start_chat(platform: Platform) -> str:
    application = web.Application()
    application.router.add_post("/v1/chat/completions", _answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    platform.running.append(runner.cleanup)
    registry = grpc.aio.server()
    peer = Registry(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")  # type: ignore[abstract]
    registry_pb2_grpc.add_DeploymentServiceServicer_to_server(peer, registry)
    port = registry.add_insecure_port("127.0.0.1:0")
    await registry.start()
    platform.running.append(lambda: registry.stop(None))
    settings = platform.settings("chat", "espalier_chat", **{"model-registry": f"127.0.0.1:{port}"})
    return await platform.serve(build_chat(ChatSettings(**settings)))


async def ask(stub: Any, session_id: str) -> chat_pb2.Message:
    request = chat_pb2.SendMessageRequest(session_id=session_id, text="Is it?")
    message: chat_pb2.Message = [delta async for delta in stub.SendMessage(request)][-1].message
    return message


async def test_chat_answers_within_quota_and_refuses_over_it_also_while_auth_is_away(platform: Platform) -> None:
    address = await start_chat(platform)
    (mia, her_token), (_, his_token) = await platform.person("mia", "tester"), await platform.person("ben", "tester")
    quotas = await platform.quotas()
    # Where it is about noon now no day begins anew while this test runs; these names have their signs turned round.
    limit = usage_pb2.Quota(
        user_id=mia,
        kind=usage_pb2.USAGE_KIND_TOKENS_IN,
        amount=20,
        period=usage_pb2.QUOTA_PERIOD_DAY,
        time_zone=f"Etc/GMT{utc_now().hour - 12:+d}",
    )
    await quotas.CreateQuota(usage_pb2.CreateQuotaRequest(quota=limit))
    hers, his = (chat_pb2_grpc.ChatServiceStub(platform.channel(address, token)) for token in (her_token, his_token))
    wanted = chat_pb2.CreateSessionRequest(session=chat_pb2.Session(deployment_id=new_id()))
    her_session, his_session = (await hers.CreateSession(wanted)).id, (await his.CreateSession(wanted)).id

    assert (await ask(hers, her_session)).text == "Yes."
    assert (await ask(his, his_session)).text == "Yes."

    async def is_settled() -> bool:
        (quota,) = (await quotas.ListQuotas(usage_pb2.ListQuotasRequest())).quotas
        return bool(quota.used == 25)

    await eventually(is_settled)
    error = await refusal(ask(hers, her_session))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert "your quota for tokens a day: 25 of 20 used or held" in error.message
    assert 0 < error.retry_after <= 86_400

    await platform.auth.stop(grace=0)
    assert (await refusal(ask(hers, her_session))).reason == "QUOTAS_UNKNOWN"
    assert (await ask(his, his_session)).text == "Yes."


async def start_orchestrator(platform: Platform) -> tuple[str, TrainingOrchestratorSettings, Any]:
    """Without its reconcilers: what is queued stays queued."""
    name = "training-orchestrator"
    package = "espalier_training_orchestrator"
    settings = TrainingOrchestratorSettings(**platform.settings(name, package), capacity_ranks=4, gpus=0)
    database, bus = Database(settings.database_url), Bus(settings.nats_url, name=name)
    identity = ServiceIdentity(platform.auth_address, name=name, secret=SECRETS[name])
    assembly = assemble(
        settings,
        database=database,
        launcher=open_launcher("local", interpreter="python"),
        publish=publish,
        limits=Limits(platform.auth_address, token=identity.token),
    )
    service = Service(
        name=name,
        package=package,
        settings=settings,
        database=database,
        bus=bus,
        servicers=servicers(assembly, settings),
        background=[OutboxRelay(database, bus).run],
    )
    return await platform.serve(service), settings, assembly


async def test_a_run_over_quota_is_refused_until_another_has_ended(platform: Platform) -> None:
    address, settings, assembly = await start_orchestrator(platform)
    mia, token = await platform.person("mia", "trainer")
    quotas = await platform.quotas()
    limit = usage_pb2.Quota(user_id=mia, kind=usage_pb2.USAGE_KIND_CONCURRENT_RUNS, amount=1)
    await quotas.CreateQuota(usage_pb2.CreateQuotaRequest(quota=limit))
    stored = usage_pb2.Quota(user_id=mia, kind=usage_pb2.USAGE_KIND_STORED_BYTES, amount=1000)
    await quotas.CreateQuota(usage_pb2.CreateQuotaRequest(quota=stored))
    runs = run_service_pb2_grpc.RunServiceStub(platform.channel(address, token))
    datasets = dataset_service_pb2_grpc.DatasetServiceStub(platform.channel(address, token))
    version_id = await a_version(datasets, settings, owner=mia, rows=20)
    await asyncio.to_thread(assembly.checker.tick)
    request = run_service_pb2.CreateRunRequest(run=run_pb2.Run(name="first", spec=the_smallest(version_id)))

    first = await runs.CreateRun(request)
    error = await refusal(runs.CreateRun(request))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert "your quota for runs at the same time: 1 of 1 used or held, 1 more asked for" in error.message

    await runs.StopRun(run_service_pb2.StopRunRequest(run_id=first.id))

    async def goes_through() -> bool:
        try:
            return bool((await runs.CreateRun(request)).id)
        except grpc.aio.AioRpcError as refused:
            if from_rpc_error(refused).reason != "QUOTA_EXCEEDED":
                raise
            return False

    await eventually(goes_through)
    error = await refusal(a_version(datasets, settings, owner=mia, rows=100))
    assert "your quota for stored bytes: " in error.message


async def a_version(datasets: Any, settings: TrainingOrchestratorSettings, *, owner: str, rows: int) -> str:
    content = b"".join(json.dumps({"text": f"line {number}"}).encode() + b"\n" for number in range(rows))
    store = UploadStore(settings.artifacts_url)
    upload = store.create(owner=owner, filename="rows.jsonl", length=len(content))
    store.append(upload.id, offset=0, chunks=[content])
    dataset = await datasets.CreateDataset(
        dataset_service_pb2.CreateDatasetRequest(dataset=dataset_pb2.Dataset(name=f"corpus-{rows}"))
    )
    file = dataset_pb2.DatasetFile(split="train", upload_id=store.finish(upload.id).id)
    made = await datasets.CreateDatasetVersion(
        dataset_service_pb2.CreateDatasetVersionRequest(
            dataset_id=dataset.id, version=dataset_pb2.DatasetVersion(files=[file])
        )
    )
    return str(made.id)


def the_smallest(version_id: str) -> run_pb2.RunSpec:
    scratch = run_pb2.ScratchModel(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        vocab_size=300,
    )
    return run_pb2.RunSpec(
        stage=run_pb2.STAGE_PT,
        base_model=run_pb2.BaseModel(scratch=scratch),
        dataset_version_ids=[version_id],
        hyperparameters=run_pb2.Hyperparameters(max_steps=10),
    )
