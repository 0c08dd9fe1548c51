"""The edge of registration: proto in, use case, proto out. Commits here."""

import asyncio
import contextvars
import smtplib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC

from google.protobuf.empty_pb2 import Empty
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from espalier.auth.v1 import registration_pb2, registration_pb2_grpc, resources_pb2
from espalier_auth.display_names import find_name_violations
from espalier_auth.email_addresses import find_email_violations
from espalier_auth.errors import InvalidPassword, InvalidUser
from espalier_auth.faults import Faults, refuse_invalid
from espalier_auth.first_admin import FirstAdmin
from espalier_auth.passwords import Passwords, find_weaknesses
from espalier_auth.registration.errors import MailNotConfigured, TooManyRequests
from espalier_auth.registration.mail import Mailer
from espalier_auth.registration.models import Invitation
from espalier_auth.registration.service import Invitations, Newcomer, NewInvitation, PasswordResets, Registration
from espalier_auth.rpc import to_user
from espalier_auth.throttle.service import NotNow, Place, Refusal, Throttle, Ticket, action_bucket
from espalier_common.db import Database
from espalier_common.errors import EspalierError, FieldViolation
from espalier_common.identifiers import is_uuid
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.client import current_client
from espalier_common.rpc.server import ServicerEntry
from espalier_common.rpc.timestamps import timestamp
from espalier_common.telemetry import get_logger

_SUBJECT = "Choose a new password for Espalier"
_TEXT = """Somebody, probably you, asked for a new password for your Espalier account.
Choose it within an hour under this address:

{link}

If it was not you, there is nothing to do: your password stays as it is.
"""

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What registration is made of."""

    registration: Registration
    invitations: Invitations
    resets: PasswordResets
    passwords: Passwords
    throttle: Throttle
    mailer: Mailer
    first_admin: FirstAdmin
    paginator: Paginator
    minimum_length: Callable[[Session], int]


class RegistrationRpc(registration_pb2_grpc.RegistrationServiceServicer):
    """Ways into the platform besides a password that an administrator gave."""

    def __init__(self, database: Database, parts: Parts) -> None:
        self._database = database
        self._parts = parts
        # One after the other, in a thread of their own: a mail server that hangs must not take those of all other work.
        self._mails = ThreadPoolExecutor(1, thread_name_prefix="mail")

    def GetRegistrationRules(
        self, request: registration_pb2.GetRegistrationRulesRequest, context: object
    ) -> registration_pb2.RegistrationRules:
        with self._database.reading() as session:
            return registration_pb2.RegistrationRules(
                mode=self._parts.registration.mode(session),
                sends_mail=self._parts.mailer.is_configured,
                password_min_length=self._parts.minimum_length(session),
            )

    async def Register(self, request: registration_pb2.RegisterRequest, context: object) -> resources_pb2.User:
        newcomer = Newcomer(
            username=request.username,
            display_name=request.display_name.strip(),
            email=request.email.strip().lower(),
            invitation_token=request.invitation_token,
        )
        # An invitation is proof enough; everybody else, and whoever tries wrong ones, is counted by address.
        ticket = await asyncio.to_thread(self._count, "register")
        try:
            await asyncio.to_thread(self._check_newcomer, newcomer, request.password)
            password_hash = await self._parts.passwords.hash(request.password)
            user = await asyncio.to_thread(self._register, newcomer, password_hash)
        except EspalierError:
            await asyncio.to_thread(self._settle, ticket, counts=True)
            raise
        await asyncio.to_thread(self._settle, ticket, counts=not request.invitation_token)
        return user

    async def ForgotPassword(self, request: registration_pb2.ForgotPasswordRequest, context: object) -> Empty:
        if not self._parts.mailer.is_configured:
            raise MailNotConfigured
        ticket = await asyncio.to_thread(self._count, "forgot")
        await asyncio.to_thread(self._settle, ticket, counts=True)
        # After the answer, which therefore takes as long for an unknown name; not part of this call's audit.
        self._mails.submit(contextvars.Context().run, self._mail_links, request.login)
        return Empty()

    async def ResetPassword(self, request: registration_pb2.ResetPasswordRequest, context: object) -> Empty:
        ticket = await asyncio.to_thread(self._count, "reset")
        try:
            await asyncio.to_thread(self._check_reset, request.token, request.new_password)
            password_hash = await self._parts.passwords.hash(request.new_password)
            await asyncio.to_thread(self._reset, request.token, password_hash)
        except EspalierError as error:
            await asyncio.to_thread(self._settle, ticket, counts=not isinstance(error, InvalidPassword))
            raise
        await asyncio.to_thread(self._settle, ticket, counts=False)
        return Empty()

    def CreatePasswordReset(
        self, request: registration_pb2.CreatePasswordResetRequest, context: object
    ) -> registration_pb2.PasswordReset:
        with self._database.transaction() as session:
            url, expires_at = self._parts.resets.create(session, request.user_id, by=current_principal())
        return registration_pb2.PasswordReset(url=url, expire_time=timestamp(expires_at))

    def CreateInvitation(
        self, request: registration_pb2.CreateInvitationRequest, context: object
    ) -> registration_pb2.Invitation:
        new = _read_invitation(request.invitation)
        with self._database.transaction() as session:
            invitation, url = self._parts.invitations.create(session, new, by=current_principal())
            return _to_invitation(invitation, url=url)

    def ListInvitations(
        self, request: registration_pb2.ListInvitationsRequest, context: object
    ) -> registration_pb2.ListInvitationsResponse:
        page = self._parts.paginator.read(request)
        with self._database.reading() as session:
            found = self._parts.invitations.list(session, page, by=current_principal())
        return registration_pb2.ListInvitationsResponse(
            invitations=[_to_invitation(each) for each in found.items], next_page_token=found.next_page_token
        )

    def DeleteInvitation(self, request: registration_pb2.DeleteInvitationRequest, context: object) -> Empty:
        with self._database.transaction() as session:
            self._parts.invitations.delete(session, request.invitation_id, by=current_principal())
        return Empty()

    async def close(self) -> None:
        """Sends no more mails: who waits for one asks again."""
        self._mails.shutdown(wait=False, cancel_futures=True)

    def _check_newcomer(self, newcomer: Newcomer, password: str) -> None:
        with self._database.reading() as session:
            faults = Faults()
            with faults.collected():
                self._parts.registration.check(session, newcomer)
            with faults.collected():
                refuse_invalid(find_name_violations(newcomer.display_name, field="display_name"), InvalidUser)
            with faults.collected():
                refuse_invalid(find_email_violations(newcomer.email, field="email"), InvalidUser)
            with faults.collected():
                self._require_good_password(session, password, username=newcomer.username, field="password")
            faults.refuse()

    def _register(self, newcomer: Newcomer, password_hash: str) -> resources_pb2.User:
        with self._database.transaction() as session:
            return to_user(self._parts.registration.register(session, newcomer, password_hash))

    def _check_reset(self, token: str, password: str) -> None:
        with self._database.reading() as session:
            user = self._parts.resets.check(session, token)
            self._require_good_password(session, password, username=user.username, field="new_password")

    def _reset(self, token: str, password_hash: str) -> None:
        with self._database.transaction() as session:
            user = self._parts.resets.use(session, token, password_hash)
            self._parts.throttle.unlock(session, user.username)
        self._parts.first_admin.forget(user)

    def _require_good_password(self, session: Session, password: str, *, username: str, field: str) -> None:
        minimum = self._parts.minimum_length(session)
        if weaknesses := find_weaknesses(password, username=username, field=field, minimum=minimum):
            raise InvalidPassword(f"The password {weaknesses[0].description}.", violations=weaknesses)

    def _count(self, action: str) -> Ticket:
        # By the measure of an address, behind which a whole office may sit, not by that of one account.
        place = Place(address=action_bucket(action, current_client().address))
        try:
            with self._database.transaction() as session:
                return self._parts.throttle.take(session, place)
        except NotNow as refused:
            seconds = refused.found.seconds if isinstance(refused.found, Refusal) else 1.0
            raise TooManyRequests(seconds) from None

    def _settle(self, ticket: Ticket, *, counts: bool) -> None:
        with self._database.transaction() as session:
            if counts:
                self._parts.throttle.failed(session, ticket)
            else:
                self._parts.throttle.withdraw(session, ticket)

    def _mail_links(self, login: str) -> None:
        try:
            with self._database.transaction() as session:
                mails = self._parts.resets.create_to_mail(session, login)
            for address, link in mails:
                self._parts.mailer.send(address, subject=_SUBJECT, text=_TEXT.format(link=link))
        except (OSError, smtplib.SMTPException, SQLAlchemyError, EspalierError) as error:
            _log.error("a mail with a link for a new password could not be sent", error=type(error).__name__)


def _read_invitation(invitation: registration_pb2.Invitation) -> NewInvitation:
    found = find_email_violations(invitation.email, field="invitation.email")
    found += [
        FieldViolation(f"invitation.group_ids[{index}]", "must be the UUID of a group", "UUID")
        for index, id in enumerate(invitation.group_ids)
        if not is_uuid(id)
    ]
    refuse_invalid(found, InvalidUser)
    given = invitation.HasField("expire_time")
    return NewInvitation(
        email=invitation.email.strip().lower(),
        roles=list(invitation.roles),
        group_ids=list(invitation.group_ids),
        expires_at=invitation.expire_time.ToDatetime(tzinfo=UTC) if given else None,
    )


def _to_invitation(invitation: Invitation, *, url: str = "") -> registration_pb2.Invitation:
    return registration_pb2.Invitation(
        id=invitation.id,
        email=invitation.email,
        roles=invitation.roles,
        group_ids=invitation.group_ids,
        url=url,
        expire_time=timestamp(invitation.expires_at),
        creator_id=invitation.creator_id,
        create_time=timestamp(invitation.created_at),
    )


def servicers(rpc: RegistrationRpc) -> list[ServicerEntry]:
    """The one, for the server."""
    descriptor = registration_pb2.DESCRIPTOR.services_by_name["RegistrationService"]
    return [(registration_pb2_grpc.add_RegistrationServiceServicer_to_server, rpc, descriptor)]
