"""One call of each RPC that changes something, such as its users would make it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import httpx
from belongings import Belongings
from people import confirm, enrol, user
from platform_process import Api, Platform
from recipes import pretraining

NOBODY_KNOWS = "a tin of red paint {}"


@dataclass(frozen=True)
class Made:
    """A call that was made: by whom (his id), its answer, and how it ends."""

    by: str
    answer: httpx.Response
    result: str = "DONE"


class Stage:
    """Who acts: an administrator, and Ida, a trainer; Anna has one object of each kind."""

    def __init__(self, platform: Platform, anna: Belongings) -> None:
        self.platform = platform
        self.anna = anna
        self.admin = platform.admin()
        self.ida = user(platform, "ida", "trainer")
        self._ids = {api: str(api.get("/api/v1/me")["user"]["id"]) for api in (self.admin, self.ida, anna.api)}
        self._numbers: Iterator[int] = count(1)

    def name(self) -> str:
        """A name that nothing has yet."""
        return f"told-{next(self._numbers)}"

    def ask(self, api: Api, method: str, path: str, body: Any = None, *, result: str = "DONE") -> Made:
        """The call whose event is looked for."""
        return self.made_by(api, api.http.request(method, path, json=body), result)

    def made_by(self, api: Api, answer: httpx.Response, result: str = "DONE") -> Made:
        """A call that was made already."""
        return Made(self._ids[api], answer, result)

    def person(self) -> tuple[str, str, str]:
        """A new user: id, name and password."""
        name, word = self.name(), NOBODY_KNOWS.format(next(self._numbers))
        made = self.admin.call("POST", "/api/v1/users", {"user": {"username": name}, "password": word})
        return str(made["id"]), name, word

    def signed_in(self) -> tuple[Api, str]:
        """A new user's client, and his password."""
        id, name, word = self.person()
        api = self.platform.login(name, word)
        self._ids[api] = id
        return api, word

    def made(self, path: str, body: Any, *, api: Api | None = None) -> str:
        """The id, or name, of something that is made first."""
        answer = (api or self.admin).call("POST", path, body)
        return str(answer.get("id") or answer["name"])

    def public(self, path: str, body: Any, *, by: str) -> Made:
        """A call without a token."""
        return Made(by, httpx.post(f"{self.platform.url}{path}", json=body, timeout=60))


def _role(stage: Stage) -> str:
    role = {"name": stage.name(), "permissions": ["prompt.prompts.list"], "scope": "own"}
    return stage.made("/api/v1/roles", role)


def _quota(stage: Stage) -> dict[str, Any]:
    id, _, _ = stage.person()
    return {"user_id": id, "kind": "USAGE_KIND_TOKENS_IN", "amount": 5, "period": "QUOTA_PERIOD_DAY"}


def _register(stage: Stage) -> Made:
    stage.admin.call("PATCH", "/api/v1/settings/auth.registration", {"value": "invitation"})
    try:
        url = stage.admin.call("POST", "/api/v1/invitations", {"roles": ["viewer"]})["url"]
        body = {"username": stage.name(), "password": NOBODY_KNOWS.format(0), "invitation_token": url.split("=")[-1]}
        made = stage.public("/api/v1/auth/register", body, by="")
        return replace(made, by=made.answer.json()["id"])
    finally:
        stage.admin.call("POST", "/api/v1/settings/auth.registration:reset", {})


def _reset_password(stage: Stage) -> Made:
    id, _, _ = stage.person()
    url = stage.admin.call("POST", f"/api/v1/users/{id}:resetPassword", {})["url"]
    body = {"token": url.split("=")[-1], "new_password": NOBODY_KNOWS.format("more")}
    return stage.public("/api/v1/auth/reset-password", body, by=id)


def _login(stage: Stage) -> Made:
    id, name, word = stage.person()
    return stage.public("/api/v1/auth/login", {"username": name, "password": word}, by=id)


def _logout(stage: Stage) -> Made:
    api, _ = stage.signed_in()
    id = api.get("/api/v1/me")["user"]["id"]
    return stage.public("/api/v1/auth/logout", {"refresh_token": api.refresh_token}, by=id)


def _change_password(stage: Stage) -> Made:
    api, word = stage.signed_in()
    body = {"current_password": word, "new_password": NOBODY_KNOWS.format("new")}
    return stage.ask(api, "POST", "/api/v1/me/password", body)


def _end_session(stage: Stage) -> Made:
    api, _ = stage.signed_in()
    (session,) = api.get("/api/v1/me/sessions")["sessions"]
    return stage.ask(api, "DELETE", f"/api/v1/me/sessions/{session['id']}")


def _end_user_sessions(stage: Stage) -> Made:
    api, _ = stage.signed_in()
    id = api.get("/api/v1/me")["user"]["id"]
    return stage.ask(stage.admin, "POST", f"/api/v1/users/{id}:endSessions", {})


def _confirm_second_factor(stage: Stage) -> Made:
    api, _ = stage.signed_in()
    secret = api.call("POST", "/api/v1/me/second-factor", {})["secret"]
    return stage.made_by(api, confirm(api, secret))


def _with_code(stage: Stage, verb: str) -> Made:
    api, _ = stage.signed_in()
    return stage.ask(api, "POST", f"/api/v1/me/second-factor:{verb}", {"code": enrol(api)[0]})


def _remove_user_second_factor(stage: Stage) -> Made:
    api, _ = stage.signed_in()
    enrol(api)
    id = api.get("/api/v1/me")["user"]["id"]
    return stage.ask(stage.admin, "POST", f"/api/v1/users/{id}:removeSecondFactor", {})


def _upload(stage: Stage) -> dict[str, Any]:
    return {"files": [{"split": "train", "upload_id": stage.ida.upload("rows.jsonl", b'{"text": "one two"}\n')}]}


def _deployment(stage: Stage) -> dict[str, Any]:
    return {"name": stage.name(), "model_version_id": stage.anna.ids["model_version"]}


def _run(stage: Stage) -> dict[str, Any]:
    return {"name": stage.name(), "spec": pretraining(stage.anna.ids["dataset_version"], max_steps=100_000)}


def _stop(stage: Stage, run_id: str) -> Made:
    return stage.ask(stage.anna.api, "POST", f"/api/v1/training/runs/{run_id}:stop", {"mode": "STOP_MODE_NOW"})


def _create_run(stage: Stage) -> Made:
    made = stage.ask(stage.anna.api, "POST", "/api/v1/training/runs", _run(stage))
    _stop(stage, made.answer.json()["id"])
    return made


def _create_deployment(stage: Stage) -> Made:
    made = stage.ask(stage.anna.api, "POST", "/api/v1/deployments", _deployment(stage))
    stage.anna.api.call("POST", f"/api/v1/deployments/{made.answer.json()['id']}:stop", {})
    return made


def _of(kind: str, path: str) -> Callable[[Stage], str]:
    return lambda stage: path.format(stage.anna.ids[kind])


_MESSAGES = _of("chat_session", "/api/v1/chat/sessions/{}/messages")
# By service and RPC.
CHANGES: dict[str, Callable[[Stage], Made]] = {
    "ApiKeyService.CreateApiKey": lambda s: s.ask(s.ida, "POST", "/api/v1/me/api-keys", {"name": s.name()}),
    "ApiKeyService.DeleteApiKey": lambda s: s.ask(
        s.ida, "DELETE", f"/api/v1/me/api-keys/{s.made('/api/v1/me/api-keys', {'name': s.name()}, api=s.ida)}"
    ),
    "RoleService.CreateRole": lambda s: s.ask(
        s.admin, "POST", "/api/v1/roles", {"name": s.name(), "permissions": [], "scope": "own"}
    ),
    "RoleService.UpdateRole": lambda s: s.ask(s.admin, "PATCH", f"/api/v1/roles/{_role(s)}", {"scope": "group"}),
    "RoleService.DeleteRole": lambda s: s.ask(s.admin, "DELETE", f"/api/v1/roles/{_role(s)}"),
    "GroupService.CreateGroup": lambda s: s.ask(s.admin, "POST", "/api/v1/groups", {"name": s.name()}),
    "GroupService.UpdateGroup": lambda s: s.ask(
        s.admin, "PATCH", f"/api/v1/groups/{s.made('/api/v1/groups', {'name': s.name()})}", {"roles": ["viewer"]}
    ),
    "GroupService.DeleteGroup": lambda s: s.ask(
        s.admin, "DELETE", f"/api/v1/groups/{s.made('/api/v1/groups', {'name': s.name()})}"
    ),
    "RegistrationService.Register": _register,
    "RegistrationService.ResetPassword": _reset_password,
    "RegistrationService.CreatePasswordReset": lambda s: s.ask(
        s.admin, "POST", f"/api/v1/users/{s.person()[0]}:resetPassword", {}
    ),
    "RegistrationService.CreateInvitation": lambda s: s.ask(s.admin, "POST", "/api/v1/invitations", {"roles": []}),
    "RegistrationService.DeleteInvitation": lambda s: s.ask(
        s.admin, "DELETE", f"/api/v1/invitations/{s.made('/api/v1/invitations', {'roles': []})}"
    ),
    "AuthService.Login": _login,
    "AuthService.Logout": _logout,
    "UserService.UpdateMe": lambda s: s.ask(s.ida, "PATCH", "/api/v1/me", {"display_name": s.name()}),
    "UserService.ChangePassword": _change_password,
    "UserService.CreateUser": lambda s: s.ask(
        s.admin, "POST", "/api/v1/users", {"user": {"username": s.name()}, "password": NOBODY_KNOWS.format(1)}
    ),
    "UserService.UpdateUser": lambda s: s.ask(
        s.admin, "PATCH", f"/api/v1/users/{s.person()[0]}", {"roles": ["viewer"]}
    ),
    "SessionService.EndMySession": _end_session,
    "SessionService.EndMyOtherSessions": lambda s: s.ask(s.signed_in()[0], "POST", "/api/v1/me/sessions:endOthers", {}),
    "SessionService.EndUserSessions": _end_user_sessions,
    "SecondFactorService.BeginMySecondFactor": lambda s: s.ask(
        s.signed_in()[0], "POST", "/api/v1/me/second-factor", {}
    ),
    "SecondFactorService.ConfirmMySecondFactor": _confirm_second_factor,
    "SecondFactorService.CreateMyRecoveryCodes": lambda s: _with_code(s, "newRecoveryCodes"),
    "SecondFactorService.RemoveMySecondFactor": lambda s: _with_code(s, "remove"),
    "SecondFactorService.RemoveUserSecondFactor": _remove_user_second_factor,
    "SettingService.UpdateSetting": lambda s: s.ask(
        s.admin, "PATCH", "/api/v1/settings/auth.session_days", {"value": "80"}
    ),
    "SettingService.ResetSetting": lambda s: s.ask(s.admin, "POST", "/api/v1/settings/auth.session_days:reset", {}),
    "SettingService.CreateBanner": lambda s: s.ask(s.admin, "POST", "/api/v1/banners", {"text": s.name()}),
    "SettingService.DeleteBanner": lambda s: s.ask(
        s.admin, "DELETE", f"/api/v1/banners/{s.made('/api/v1/banners', {'text': s.name()})}"
    ),
    "QuotaService.CreateQuota": lambda s: s.ask(s.admin, "POST", "/api/v1/quotas", _quota(s)),
    "QuotaService.UpdateQuota": lambda s: s.ask(
        s.admin, "PATCH", f"/api/v1/quotas/{s.made('/api/v1/quotas', _quota(s))}", {"amount": 6}
    ),
    "QuotaService.DeleteQuota": lambda s: s.ask(
        s.admin, "DELETE", f"/api/v1/quotas/{s.made('/api/v1/quotas', _quota(s))}"
    ),
    "ChatService.CreateSession": lambda s: s.ask(
        s.anna.api, "POST", "/api/v1/chat/sessions", {"deployment_id": s.anna.ids["deployment"]}
    ),
    "ChatService.SendMessage": lambda s: s.ask(s.anna.api, "POST", _MESSAGES(s), {"text": "Hello again."}),
    "ChatService.StopMessage": lambda s: s.ask(s.anna.api, "POST", f"{_MESSAGES(s)}/{s.anna.ids['message']}:stop", {}),
    "EvalService.CreateEvaluation": lambda s: s.ask(
        s.ida, "POST", "/api/v1/evaluations", {"name": s.name(), "items": [{"reference": "six", "answer": "six"}]}
    ),
    "ModelService.CreateModel": lambda s: s.ask(s.ida, "POST", "/api/v1/models", {"name": s.name()}),
    "ModelService.CreateModelVersion": lambda s: s.ask(
        s.anna.api, "POST", f"/api/v1/models/{s.anna.ids['model']}/versions", {"run_id": s.anna.ids["run"]}
    ),
    "DeploymentService.CreateDeployment": _create_deployment,
    "DeploymentService.StopDeployment": lambda s: s.ask(
        s.anna.api, "POST", f"/api/v1/deployments/{s.made('/api/v1/deployments', _deployment(s), api=s.anna.api)}:stop"
    ),
    "PromptService.CreatePrompt": lambda s: s.ask(s.ida, "POST", "/api/v1/prompts", {"name": s.name(), "text": "x"}),
    "DatasetService.CreateDataset": lambda s: s.ask(s.ida, "POST", "/api/v1/training/datasets", {"name": s.name()}),
    "DatasetService.CreateDatasetVersion": lambda s: s.ask(
        s.ida,
        "POST",
        f"/api/v1/training/datasets/{s.made('/api/v1/training/datasets', {'name': s.name()}, api=s.ida)}/versions",
        _upload(s),
    ),
    "RunService.CreateRun": _create_run,
    "RunService.StopRun": lambda s: _stop(s, s.made("/api/v1/training/runs", _run(s), api=s.anna.api)),
    # It has ended well; what cannot be done is told too. tests/e2e resumes one.
    "RunService.ResumeRun": lambda s: s.ask(
        s.anna.api, "POST", f"/api/v1/training/runs/{s.anna.ids['run']}:resume", {}, result="FAILED"
    ),
}
