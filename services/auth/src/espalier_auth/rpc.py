"""The edge of users: proto in, use case, proto out. Commits here.

Handlers that check a password are coroutines: the check, and what follows from it, runs in the pool of `passwords.py`,
and while it computes it holds neither a thread that answers others nor a database connection.
"""

import asyncio
from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from sqlalchemy.orm import Session

from espalier.auth.v1 import resources_pb2, service_pb2, service_pb2_grpc
from espalier_auth.access.rights import AccessRights
from espalier_auth.caller import current_person
from espalier_auth.display_names import find_name_violations
from espalier_auth.email_addresses import find_email_violations
from espalier_auth.errors import InvalidPassword, InvalidUser
from espalier_auth.etags import role_etag, user_etag
from espalier_auth.faults import Faults, find_mask_violations, refuse_invalid
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.models import KnownPassword, User
from espalier_auth.passwords import Passwords, find_weaknesses
from espalier_auth.registration.errors import PasswordElsewhere
from espalier_auth.repository import UserFilter
from espalier_auth.roles import Role
from espalier_auth.service import NewUser, OwnChanges, UserChanges, Users
from espalier_auth.throttle.gate import PasswordGate
from espalier_common.db import Database
from espalier_common.errors import FieldViolation
from espalier_common.identifiers import is_uuid
from espalier_common.identity import Principal, current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp

# What a user changes of himself, and an administrator of a user.
_OWN = ("display_name", "email")
_CHANGEABLE = ("display_name", "email", "roles", "disabled")


class UserRpc(service_pb2_grpc.UserServiceServicer):
    """One's own account, and the administration of others."""

    def __init__(
        self,
        database: Database,
        *,
        users: Users,
        passwords: Passwords,
        gate: PasswordGate,
        access: AccessRights,
        first_admin: FirstAdmin,
        paginator: Paginator,
        minimum_length: Callable[[Session], int],
        forget_links: Callable[[Session, str], None],
    ) -> None:
        self._forget_links = forget_links
        self._database = database
        self._users = users
        self._passwords = passwords
        self._gate = gate
        self._access = access
        self._first_admin = first_admin
        self._paginator = paginator
        self._minimum_length = minimum_length

    def GetMe(self, request: service_pb2.GetMeRequest, context: object) -> service_pb2.Me:
        caller = current_person()
        with self._database.reading() as session:
            user = self._users.get(session, caller.subject)
            rights = self._access.of(session, user)
        permissions = caller.permissions if caller.api_key or caller.must_enrol else rights.permissions
        return service_pb2.Me(
            user=to_user(user),
            permissions=sorted(permissions),
            scope=rights.scope,
            second_factor_enrolment_required=caller.must_enrol,
        )

    def UpdateMe(self, request: service_pb2.UpdateMeRequest, context: object) -> resources_pb2.User:
        changes = _read_own_changes(request)
        with self._database.transaction() as session:
            user = self._users.update_self(session, current_person(), changes)
            if changes.email is not None:
                # Those of before were mailed to another address.
                self._forget_links(session, user.id)
            return to_user(user)

    async def ChangePassword(self, request: service_pb2.ChangePasswordRequest, context: object) -> Empty:
        caller = current_person()
        if (provider := await asyncio.to_thread(self._provider_of, caller.subject)) is not None:
            raise PasswordElsewhere(f"You sign in with {provider} and have no password here; change it there.")
        user = await self._gate.confirm(
            caller.subject, session_id=caller.session or caller.subject, password=request.current_password
        )
        if user is None:
            raise InvalidPassword(
                "The current password is wrong.",
                violations=[FieldViolation("current_password", "is not your password", "WRONG_PASSWORD")],
            )
        await self._require_good_password(request.new_password, username=user.username, field="new_password")
        if request.new_password == request.current_password:
            found = FieldViolation("new_password", "is the one you have; choose another one", "SAME_PASSWORD")
            raise InvalidPassword("The new password must differ from the current one.", violations=[found])
        new_hash = await self._passwords.hash(request.new_password)
        changed = await asyncio.to_thread(self._change_password, user, new_hash)
        await asyncio.to_thread(self._first_admin.forget, changed)
        return Empty()

    async def CreateUser(self, request: service_pb2.CreateUserRequest, context: object) -> resources_pb2.User:
        faults = Faults()
        with faults.collected():
            _require_username(request.user.username)
        with faults.collected():
            _require_name_and_email(request.user)
        # Refused before the hash is worked out; asked once more when the user is added.
        with faults.collected():
            await asyncio.to_thread(self._check_roles, list(request.user.roles), current_principal())
        with faults.collected():
            await self._require_good_password(request.password, username=request.user.username, field="password")
        faults.refuse()
        new = NewUser(
            username=request.user.username,
            display_name=request.user.display_name.strip(),
            roles=list(request.user.roles),
            password_hash=await self._passwords.hash(request.password),
            email=request.user.email.strip().lower(),
            email_verified=True,
            disabled=request.user.disabled,
        )
        return await asyncio.to_thread(self._create_user, new, current_principal())

    def GetUser(self, request: service_pb2.GetUserRequest, context: object) -> resources_pb2.User:
        with self._database.reading() as session:
            return to_user(self._users.see(session, request.user_id, by=current_principal()))

    def ListUsers(self, request: service_pb2.ListUsersRequest, context: object) -> service_pb2.ListUsersResponse:
        page = self._paginator.read(request)
        wanted = UserFilter(
            query=request.query,
            role=request.role,
            group_id=request.group_id,
            disabled=request.disabled if request.HasField("disabled") else None,
            identity_provider=request.identity_provider if request.HasField("identity_provider") else None,
            second_factor_enrolled=(
                request.second_factor_enrolled if request.HasField("second_factor_enrolled") else None
            ),
        )
        with self._database.reading() as session:
            found = self._users.list(session, wanted, page, by=current_principal())
        return service_pb2.ListUsersResponse(
            users=[to_user(user) for user in found.items], next_page_token=found.next_page_token
        )

    def UpdateUser(self, request: service_pb2.UpdateUserRequest, context: object) -> resources_pb2.User:
        changes = _read_changes(request)
        with self._database.transaction() as session:
            user = self._users.update(session, request.user.id, changes, by=current_principal())
            if changes.email is not None:
                self._forget_links(session, user.id)
            return to_user(user)

    def ListRoles(self, request: service_pb2.ListRolesRequest, context: object) -> service_pb2.ListRolesResponse:
        with self._database.reading() as session:
            roles = self._access.roles(session)
        return service_pb2.ListRolesResponse(roles=[role_message(role) for role in roles.values()])

    async def _require_good_password(self, password: str, *, username: str, field: str) -> None:
        minimum = await asyncio.to_thread(self._get_minimum_length)
        if weaknesses := find_weaknesses(password, username=username, field=field, minimum=minimum):
            raise InvalidPassword(f"The password {weaknesses[0].description}.", violations=weaknesses)

    def _get_minimum_length(self) -> int:
        with self._database.reading() as session:
            return self._minimum_length(session)

    def _check_roles(self, names: list[str], by: Principal) -> None:
        with self._database.reading() as session:
            self._access.require_known(session, names, field="user.roles")
            self._access.require_rights_of(session, names, by=by)

    def _get_user(self, user_id: str) -> User:
        with self._database.reading() as session:
            return self._users.get(session, user_id)

    def _provider_of(self, user_id: str) -> str | None:
        """With what a user signs in who has no password here; None of who has one."""
        user = self._get_user(user_id)
        return None if user.has_password else user.identity_provider or "an identity provider"

    def _create_user(self, new: NewUser, by: Principal) -> resources_pb2.User:
        with self._database.transaction() as session:
            return to_user(self._users.create(session, new, by=by))

    def _change_password(self, user: KnownPassword, new_hash: str) -> User:
        with self._database.transaction() as session:
            changed = self._users.change_password(session, user, new_hash)
            # Whoever holds an older link must not undo what the owner chose.
            self._forget_links(session, changed.id)
            return changed


def servicers(users: UserRpc) -> list[ServicerEntry]:
    """The one, for the server."""
    descriptor = service_pb2.DESCRIPTOR.services_by_name["UserService"]
    return [(service_pb2_grpc.add_UserServiceServicer_to_server, users, descriptor)]


def to_user(user: User) -> resources_pb2.User:
    """The user as others may see him: never the hash."""
    return resources_pb2.User(
        id=user.id,
        username=user.username,
        display_name=user.display_name,
        roles=user.roles,
        disabled=user.disabled,
        password_change_required=user.password_change_required,
        create_time=timestamp(user.created_at),
        last_login_time=timestamp(user.last_login_at),
        email=user.email,
        group_ids=user.group_ids or (),
        email_verified=user.email_verified,
        identity_provider=user.identity_provider,
        etag=user_etag(user),
        second_factor_enrolled=user.second_factor_since is not None,
    )


def role_message(role: Role) -> resources_pb2.Role:
    """The role as it is told."""
    return resources_pb2.Role(
        name=role.name,
        description=role.description,
        permissions=role.permissions,
        scope=role.scope,
        built_in=role.built_in,
        etag=role_etag(role),
    )


def _require_username(username: str) -> None:
    # Not `required` in the contract: an update names the user by id, and the same message carries both.
    if not username:
        raise InvalidUser(
            "The user needs a username.", violations=[FieldViolation("user.username", "is required", "REQUIRED")]
        )


def _require_name_and_email(user: resources_pb2.User) -> None:
    found = find_name_violations(user.display_name, field="user.display_name")
    found += find_email_violations(user.email, field="user.email")
    refuse_invalid(found, InvalidUser)


def _read_own_changes(request: service_pb2.UpdateMeRequest) -> OwnChanges:
    user, paths = request.user, set(request.update_mask.paths)
    found = find_mask_violations(paths, _OWN)
    if "display_name" in paths:
        found += find_name_violations(user.display_name, field="user.display_name")
    if "email" in paths:
        found += find_email_violations(user.email, field="user.email")
    refuse_invalid(found, InvalidUser)
    return OwnChanges(
        display_name=user.display_name.strip() if "display_name" in paths else None,
        email=user.email.strip().lower() if "email" in paths else None,
        etag=user.etag,
    )


def _read_changes(request: service_pb2.UpdateUserRequest) -> UserChanges:
    user, paths = request.user, set(request.update_mask.paths)
    found = find_mask_violations(paths, _CHANGEABLE)
    if not is_uuid(user.id):
        found.append(FieldViolation("user.id", "must be the UUID of the user", "UUID"))
    if "display_name" in paths:
        found += find_name_violations(user.display_name, field="user.display_name")
    if "email" in paths:
        found += find_email_violations(user.email, field="user.email")
    refuse_invalid(found, InvalidUser)
    return UserChanges(
        display_name=user.display_name.strip() if "display_name" in paths else None,
        email=user.email.strip().lower() if "email" in paths else None,
        roles=list(user.roles) if "roles" in paths else None,
        disabled=user.disabled if "disabled" in paths else None,
        etag=user.etag,
    )
