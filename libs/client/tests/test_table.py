import json
from pathlib import Path

from pydantic import SecretStr

from espalier_auth.settings import AuthSettings
from espalier_client.local import secrets, table
from espalier_client.local.layout import Layout
from espalier_client.local.table import SERVICES, Told


def told(tmp_path: Path) -> Told:
    names = [service.name for service in SERVICES]
    return Told(
        layout=Layout(tmp_path),
        secrets=secrets.load_or_create(tmp_path / "s.json", services=names, nats_users=[*names, table.RUNNER]),
        ports={name: 7000 + index for index, name in enumerate(table.NAMES)},
        database_url=lambda name: f"postgresql+psycopg2://{name}",
        nats_url=lambda name: f"nats://{name}",
    )


def settings(name: str, tmp_path: Path) -> dict[str, str]:
    return table.settings_of(next(service for service in SERVICES if service.name == name), told(tmp_path))


def test_each_service_gets_its_own_database_and_secret(tmp_path: Path) -> None:
    chat, registry = settings("chat", tmp_path), settings("model-registry", tmp_path)
    assert chat["ESPALIER_DATABASE_URL"] != registry["ESPALIER_DATABASE_URL"]
    assert chat["ESPALIER_SERVICE_SECRET"] != registry["ESPALIER_SERVICE_SECRET"]
    assert "ESPALIER_DATABASE_URL" not in settings("gateway", tmp_path)


def test_only_auth_gets_the_master_key_and_it_knows_hashes_of_all_others(tmp_path: Path) -> None:
    holders = [service.name for service in SERVICES if "ESPALIER_MASTER_KEY" in settings(service.name, tmp_path)]
    assert holders == ["auth"]
    hashes = json.loads(settings("auth", tmp_path)["ESPALIER_SERVICE_SECRET_HASHES"])
    assert set(hashes) == {service.name for service in SERVICES} - {"auth"}


def test_a_master_key_put_aside_as_the_former_one_is_followed_by_a_new_one_and_told_to_auth(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    first = told(tmp_path).secrets.master_key
    kept = json.loads(path.read_text("utf-8"))
    kept["former-master-key"] = kept.pop("master-key")
    path.write_text(json.dumps(kept), "utf-8")
    given = settings("auth", tmp_path)

    assert given["ESPALIER_FORMER_MASTER_KEY"] == first
    assert given["ESPALIER_MASTER_KEY"] not in {"", first}
    assert "ESPALIER_FORMER_MASTER_KEY" not in settings("chat", tmp_path)


def test_what_is_for_auth_alone_reaches_no_other_service() -> None:
    fields = AuthSettings.model_fields.items()
    own = {f"ESPALIER_{name.upper()}" for name, field in fields if field.annotation is SecretStr}
    secrets = (own | {"ESPALIER_AUDIT_FORWARD_URL"}) - {"ESPALIER_SERVICE_SECRET"}  # each service has that one
    operator = table.defaults({"gateway": 7000}) | {"ESPALIER_LOG_LEVEL": "debug"} | dict.fromkeys(secrets, "x")
    told_to = {service.name: table.meant_for(service, operator) for service in SERVICES}
    for secret in secrets:
        assert [name for name, settings in told_to.items() if secret in settings] == ["auth"]
    assert {settings["ESPALIER_PUBLIC_URL"] for settings in told_to.values()} == {"http://127.0.0.1:7000"}


def test_no_secret_of_the_caller_reaches_a_service() -> None:
    own = ("PASSWORD", "NEW_PASSWORD", "CODE", "TOKEN")
    environment = {f"ESPALIER_{name}": "x" for name in own} | {"ESPALIER_LOG_LEVEL": "debug", "PYTHONPATH": "/z"}
    assert table.operator_settings(environment) == {"ESPALIER_LOG_LEVEL": "debug"}
    assert not {"PYTHONPATH", "ESPALIER_TOKEN"} & set(table.inherited(environment))
    assert table.inherited(environment | {"GRPC_EXPERIMENTS": ""})["GRPC_EXPERIMENTS"] == "", "the operator's counts"
