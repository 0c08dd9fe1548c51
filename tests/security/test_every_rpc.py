"""Every RPC of every service, at the service itself and at the gateway, called by those who should get nothing.

An RPC that is added to the contract is walked at once. It fails here until it is classified: a public one stands in
PUBLIC with its reason, a field that takes an id stands in KINDS with the kind of object it names.
"""

import uuid
from collections.abc import Callable

import pytest
from belongings import Belongings
from fill import ids_in, request_of
from forgery import Forger, claims_of
from google.protobuf.descriptor import MethodDescriptor
from people import password_of, token_of, user
from platform_process import Api, Platform
from wire import Told, Wire, all_rpcs, new_request

from espalier_common.identity import Principal
from espalier_common.rpc.permissions import AUTHENTICATED, PUBLIC, requirement

OPEN = {
    "AuthService.Login": "checks the password it is given",
    "AuthService.Refresh": "checks the refresh token it is given",
    "AuthService.Logout": "ends the session of the refresh token it is given",
    "AuthService.GetJwks": "public keys",
    "AuthService.IssueServiceToken": "checks the secret it is given",
    "RegistrationService.GetRegistrationRules": "told before the sign-in",
    "RegistrationService.Register": "checks the setting and the invitation",
    "RegistrationService.ForgotPassword": "the same answer for every name",
    "RegistrationService.ResetPassword": "checks the token of the link",
    "OidcService.ListIdentityProviders": "the buttons of the sign-in page",
    "OidcService.StartOidcLogin": "the way to the provider",
    "OidcService.FinishOidcLogin": "checks the code of the provider",
    "OidcService.EndProviderSessions": "checks the logout token of the provider",
    "ApiKeyService.ExchangeApiKey": "checks the key it is given",
    "SettingService.ListCurrentBanners": "told before the sign-in too",
    "SettingService.ListBanners": "told before the sign-in too",
    "RunnerService.RegisterAttempt": "checks the token of the attempt",
    "RunnerService.Heartbeat": "checks the token of the attempt",
}
# Kinds of objects by the last name of the field that takes an id; the first fitting end of "package:path" wins.
KINDS = {
    "training_orchestrator:version_id": "dataset_version",
    "model_registry:version_id": "model_version",
    "chat:session_id": "chat_session",
    "auth:session_id": "login_session",
    "dataset_version_ids": "dataset_version",
    "dataset_id": "dataset",
    "upload_id": "upload",
    "base_run_id": "run",
    "run_id": "run",
    "model_version_id": "model_version",
    "model_id": "model",
    "deployment_id": "deployment",
    "message_id": "message",
    "evaluation_id": "evaluation",
    "prompt_id": "prompt",
    "api_key_id": "api_key",
}
# Chosen by the caller; it names nobody's object.
CHOSEN = {"request_id"}
SHARED = {
    "GetDeployment": "deployments are everybody's to use (ADR 8)",
    "StopDeployment": "a deployment is visible, and stopping another's is refused, not hidden (ADR 8)",
    "ResolveEndpoint": "deployments are everybody's to use (ADR 8)",
    "CreateSession": "deployments are everybody's to use (ADR 8)",
}
# Reading these is administration; who only looks has no part in it.
ADMINISTRATION = ("auth.users.", "auth.invitations.", "auth.audit.", "auth.settings.", "training.workloads.")

RPCS = all_rpcs()


def name_of(rpc: MethodDescriptor) -> str:
    return f"{rpc.containing_service.name}.{rpc.name}"


def kind_of(rpc: MethodDescriptor, path: str) -> str | None:
    """The kind of object that a field names; None when nobody has said."""
    package = rpc.containing_service.file.package.split(".")[1]
    last = path.rsplit(".", maxsplit=1)[-1]
    return KINDS.get(f"{package}:{last}") or KINDS.get(last)


def may(token: str, permission: str) -> bool:
    """What the token says that its user may do."""
    claims = claims_of(token)
    permissions = frozenset(claims["permissions"])
    return Principal(subject="", name="", kind="user", roles=(), permissions=permissions, scope=claims["scope"]).may(
        permission
    )


@pytest.mark.parametrize("rpc", RPCS, ids=name_of)
def test_nobody_gets_what_is_not_his(
    rpc: MethodDescriptor, wire: Wire, forger: Forger, viewer: Api, owners: tuple[Belongings, Belongings]
) -> None:
    for call in wire.transports(rpc):
        if requirement(rpc) == PUBLIC:
            check_open(rpc, call, forger)
            continue
        check_unknown(rpc, call, forger)
        check_viewer(rpc, call, token_of(viewer))
        check_other_owner(rpc, call, owners)


def check_open(rpc: MethodDescriptor, call: Callable[..., Told], forger: Forger) -> None:
    """Public on purpose, and a bad token gives no more than none."""
    assert name_of(rpc) in OPEN, "a new public RPC: say in OPEN why anybody may call it"
    request = new_request(rpc)
    without = call(request, None)
    assert [call(request, token) for token in (forger.expired(), forger.forged())] == [without, without]


def check_unknown(rpc: MethodDescriptor, call: Callable[..., Told], forger: Forger) -> None:
    for token in (None, forger.expired(), forger.forged()):
        assert call(new_request(rpc), token).code == "UNAUTHENTICATED"


def check_viewer(rpc: MethodDescriptor, call: Callable[..., Told], token: str) -> None:
    """Who only looks: the verb of the permission says what he gets."""
    permission = requirement(rpc)
    told = call(new_request(rpc), token)
    if permission == AUTHENTICATED:
        # On a slow machine his sign-in may be no recent one by now.
        assert told.code not in {"UNAUTHENTICATED", "PERMISSION_DENIED"} or "SIGN_IN_AGAIN" in told.text, told
        return
    looks = permission.endswith((".get", ".list")) and not permission.startswith(ADMINISTRATION)
    if looks and may(token, permission):
        assert told.code not in {"UNAUTHENTICATED", "PERMISSION_DENIED"}, told
    else:
        assert told.code == "PERMISSION_DENIED", told
        assert permission in told.text


def check_other_owner(rpc: MethodDescriptor, call: Callable[..., Told], owners: tuple[Belongings, Belongings]) -> None:
    """Bert asks for what is Anna's, and is told the same as when it does not exist."""
    _, bert = owners
    permitted = requirement(rpc) == AUTHENTICATED or may(token_of(bert.api), requirement(rpc))
    paths = [path for path in ids_in(rpc) if path.rsplit(".", maxsplit=1)[-1] not in CHOSEN]
    if not permitted:
        told = call(request_of(rpc, lambda _: str(uuid.uuid4())), token_of(bert.api))
        assert told.code == "PERMISSION_DENIED", told
        return
    unclassified = [path for path in paths if kind_of(rpc, path) is None]
    assert not unclassified, "say in KINDS what these fields name"
    if paths and rpc.name not in SHARED:
        # Each alone among ids of his own, and all at once.
        for foreign in {frozenset({path}) for path in paths} | {frozenset(paths)}:
            compare(rpc, call, foreign=foreign, owners=owners)


def compare(
    rpc: MethodDescriptor,
    call: Callable[..., Told],
    *,
    foreign: frozenset[str],
    owners: tuple[Belongings, Belongings],
) -> None:
    anna, bert = owners
    missing = {path: str(uuid.uuid4()) for path in foreign}

    def theirs(path: str) -> str:
        kind = kind_of(rpc, path)
        if kind is None:
            return str(uuid.uuid4())
        return anna.ids[kind] if path in foreign else bert.ids[kind]

    def nobodys(path: str) -> str:
        return missing[path] if path in foreign else theirs(path)

    token = token_of(bert.api)
    found = call(request_of(rpc, theirs, about=foreign), token)
    expected = call(request_of(rpc, nobodys, about=foreign), token)
    names = {theirs(path): missing[path] for path in foreign}
    # An id deep in a body is a field that names nothing; the addressed resource itself is not found.
    in_a_body = all(path.count(".") > 1 for path in foreign)
    assert found.code in ({"INVALID_ARGUMENT", "400"} if in_a_body else {"NOT_FOUND"}), (sorted(foreign), found)
    assert found.but_for(names) == expected, sorted(foreign)


def test_who_has_to_enrol_a_second_factor_gets_nothing_before_of_any_service(
    platform: Platform, wire: Wire, admin: Api
) -> None:
    """An administrator's right password alone, where more is required."""
    user(platform, "erna", "admin")
    setting = "/api/v1/settings/auth.second_factor"
    admin.call("PATCH", setting, {"value": "required"})
    try:
        token = token_of(platform.login("erna", password_of("erna")))
    finally:
        admin.call("POST", f"{setting}:reset", {})

    open_to_him = set()
    for rpc in RPCS:
        if requirement(rpc) == PUBLIC:
            continue
        for call in wire.transports(rpc):
            told = call(new_request(rpc), token)
            if "SECOND_FACTOR_ENROLMENT_REQUIRED" not in told.text:
                open_to_him.add(rpc.name)
            else:
                assert told.code == "PERMISSION_DENIED", told
    assert open_to_him == {"GetMe", "GetMySecondFactor", "BeginMySecondFactor", "ConfirmMySecondFactor"}


FILE_ROUTES = [("GET", ""), ("HEAD", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/content")]


@pytest.mark.parametrize(("method", "rest"), FILE_ROUTES)
def test_files_of_others_are_as_if_they_did_not_exist(
    method: str, rest: str, forger: Forger, owners: tuple[Belongings, Belongings]
) -> None:
    """The routes that no RPC describes."""
    anna, bert = owners
    theirs, missing = anna.ids["upload"], str(uuid.uuid4())
    headers = {"tus-resumable": "1.0.0", "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    for token in ("", f"Bearer {forger.expired()}", f"Bearer {forger.forged()}"):
        asked = bert.api.http.request(
            method, f"/api/v1/files/{theirs}{rest}", headers={**headers, "authorization": token}
        )
        assert asked.status_code == 401
    answers = [
        bert.api.http.request(method, f"/api/v1/files/{name}{rest}", headers=headers) for name in (theirs, missing)
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    texts = [answer.text.replace(theirs, missing) for answer in answers]
    for position, answer in enumerate(answers):
        texts[position] = texts[position].replace(answer.headers["x-request-id"], "")
    assert texts[0] == texts[1]
