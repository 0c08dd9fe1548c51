"""The probes."""

from .running import RunningGateway, StartGateway


async def test_a_gateway_whose_services_answer_is_live_and_ready(gateway: RunningGateway) -> None:
    assert (await gateway.client.get("/healthz")).status_code == 200
    answer = await gateway.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "not_ready": {}})


async def test_what_is_not_ready_is_named_and_the_rest_goes_on(start_gateway: StartGateway) -> None:
    first = await start_gateway()
    signed_in = {"authorization": f"Bearer {first.token()}"}
    services = {**first.settings.services, "eval": "127.0.0.1:9"}
    gateway = await start_gateway(services=services)
    answer = await gateway.client.get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json()["not_ready"]) == {"eval"}
    assert "127.0.0.1:9" in answer.json()["not_ready"]["eval"]
    assert (await gateway.client.get("/healthz")).status_code == 200
    assert (await gateway.client.get("/api/v1/me", headers=signed_in)).status_code == 200


async def test_a_gateway_that_cannot_tell_whom_it_serves_is_not_ready(start_gateway: StartGateway) -> None:
    # The servers of these tests give it no token, and take none from others.
    gateway = await start_gateway(service_secret="of-the-gateway")
    answer = await gateway.client.get("/readyz")
    assert (answer.status_code, answer.json()["not_ready"]) == (503, {"gateway": "has no token of its own yet"})


async def test_a_stopping_gateway_is_not_ready(gateway: RunningGateway) -> None:
    gateway.server._gateway.draining.set()
    answer = await gateway.client.get("/readyz")
    assert (answer.status_code, answer.json()["not_ready"]) == (503, {"gateway": "is stopping"})
