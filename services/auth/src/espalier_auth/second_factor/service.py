"""What people do with their second factor. Each call is part of the caller's transaction.

Whoever changes a factor, or uses a code of it, has its user locked: so no code counts for a factor that goes, and no
session begins without a code once there is one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from espalier_auth import repository as users_repository
from espalier_auth.access.rights import AccessRights
from espalier_auth.access.service import take_back
from espalier_auth.errors import UserNotFound
from espalier_auth.keys import Sealer
from espalier_auth.models import User
from espalier_auth.registration.errors import PasswordElsewhere
from espalier_auth.second_factor import codes, repository
from espalier_auth.second_factor.errors import (
    CodeRefused,
    EnrolmentOver,
    Fault,
    RemoveOwn,
    SecondFactorEnrolled,
    SecondFactorNotEnrolled,
    SecondFactorSealed,
    WrongCode,
)
from espalier_auth.second_factor.models import SecondFactor
from espalier_auth.service import end_all_sessions, end_other_sessions, require_recent_sign_in
from espalier_common.audit.recording import note_after, note_before
from espalier_common.db import utc_now
from espalier_common.identity import Principal
from espalier_common.settings import SettingsError
from espalier_common.visibility import reaches

# A secret that was shown and never confirmed is good for nothing after this.
ENROLMENT_LIVES = timedelta(minutes=15)
# After so many without a right one between, no code of the authenticator counts before a recovery code was given:
# whoever has the password and guesses for months gets no further than one chance in five thousand.
MOST_WRONG_CODES = 100


@dataclass(frozen=True)
class State:
    """One's second factor."""

    since: datetime | None
    recovery_codes_left: int
    required: bool


@dataclass(frozen=True)
class Secret:
    """What an authenticator is given, once."""

    text: str
    uri: str


class SecondFactors:
    """The second factors of users. `issuer` is what their apps call the platform."""

    def __init__(
        self, sealer: Sealer, access: AccessRights, *, issuer: str, is_required: Callable[[Session], bool]
    ) -> None:
        self._sealer = sealer
        self._access = access
        self._issuer = issuer
        self._is_required = is_required

    def state(self, session: Session, owner: Principal) -> State:
        """Whether the caller has one. Raises UserNotFound."""
        user = users_repository.find_user(session, owner.subject)
        if user is None:
            raise UserNotFound(owner.subject)
        left = repository.count_recovery_codes(session, user.id) if user.second_factor_since else 0
        return State(user.second_factor_since, left, self._is_required(session))

    def begin(self, session: Session, owner: Principal) -> Secret:
        """Makes a secret for the caller's authenticator; it counts for nothing before it is confirmed.

        Raises SecondFactorEnrolled, PasswordElsewhere, SignInAgain.
        """
        user = _lock(session, owner)
        if not user.has_password:
            raise PasswordElsewhere("You sign in with an identity provider; a second factor is asked for there.")
        if user.second_factor_since is not None:
            raise SecondFactorEnrolled
        require_recent_sign_in(session, owner, "to enrol a second factor")
        secret = codes.new_secret()
        sealed, master_key_id = self._sealer.seal(secret, bound_to=user.id)
        begun = repository.find_factor(session, user.id)
        if begun is None:
            begun = SecondFactor(user_id=user.id)
            session.add(begun)
        begun.sealed_secret, begun.master_key_id, begun.begun_at = sealed, master_key_id, utc_now()
        begun.last_step = begun.wrong_codes = 0
        uri = codes.otpauth_uri(secret, username=user.username, issuer=self._issuer)
        return Secret(codes.to_base32(secret), uri)

    def confirm(self, session: Session, code: str, *, owner: Principal) -> list[str]:
        """Makes the factor live, and ends the caller's other sessions, which began without it; gives recovery codes.

        A wrong code is not counted: who confirms was shown the secret. Raises EnrolmentOver, SecondFactorEnrolled,
        CodeRefused.
        """
        user = _lock(session, owner)
        if user.second_factor_since is not None:
            raise SecondFactorEnrolled
        now = utc_now()
        factor = repository.find_factor(session, user.id)
        if factor is None or now - factor.begun_at > ENROLMENT_LIVES:
            raise EnrolmentOver
        secret, typed = self._open(factor), codes.normalized(code)
        step = codes.step_of(secret, typed, now=now.timestamp())
        if step is None:
            raise CodeRefused(_fault(secret, typed, now=now.timestamp()))
        factor.last_step = step
        user.second_factor_since = now
        end_other_sessions(session, owner, reason="SECOND_FACTOR_CHANGED")
        return self._renew_recovery_codes(session, user.id)

    def renew_recovery_codes(self, session: Session, code: str, *, owner: Principal) -> list[str]:
        """Ten new ones for those of before. Raises SecondFactorNotEnrolled, SignInAgain, WrongCode."""
        user = _lock_enrolled(session, owner)
        require_recent_sign_in(session, owner, "to make new recovery codes")
        self.use(session, user.id, code)
        return self._renew_recovery_codes(session, user.id)

    def remove(self, session: Session, code: str, *, owner: Principal) -> None:
        """Removes the caller's factor and ends his other sessions. Raises what `renew_recovery_codes` raises."""
        user = _lock_enrolled(session, owner)
        require_recent_sign_in(session, owner, "to remove your second factor")
        self.use(session, user.id, code)
        self._remove(session, user)
        end_other_sessions(session, owner, reason="SECOND_FACTOR_CHANGED")
        # Where one is required, the session that goes on may from now on do nothing but enrol another.
        take_back(session, [user.id])

    def remove_of(self, session: Session, user_id: str, *, by: Principal) -> None:
        """Removes the factor of somebody else, who lost it, and ends his sessions.

        Raises UserNotFound, RemoveOwn, SecondFactorNotEnrolled, AboveOwnRights for whom the caller may not stand for.
        """
        user = users_repository.lock_user(session, user_id)
        if user is None or not reaches(user.id, by):
            raise UserNotFound(user_id)
        if user.id == by.subject:
            raise RemoveOwn
        self._access.require_to_stand_for(session, user, by=by)
        if user.second_factor_since is None:
            raise SecondFactorNotEnrolled("This user has")
        self._remove(session, user)
        end_all_sessions(session, user.id, reason="SECOND_FACTOR_REMOVED")

    def remove_by_operator(self, session: Session, username: str) -> User:
        """Removes the factor of whom nobody else can help. Raises SettingsError when there is nothing to remove."""
        found = users_repository.find_user_by_username(session, username.lower())
        user = users_repository.lock_user(session, found.id) if found else None
        if user is None:
            raise SettingsError(f"There is no user {username!r}.")
        if user.second_factor_since is None:
            raise SettingsError(f"The user {username!r} has no second factor.")
        self._remove(session, user)
        end_all_sessions(session, user.id, reason="SECOND_FACTOR_REMOVED")
        return user

    def use(self, session: Session, user_id: str, typed: str) -> None:
        """Uses a code up, of the authenticator or for recovery, of a user whom the caller has locked.

        Raises WrongCode, which has to undo the transaction.
        """
        factor = repository.find_factor(session, user_id)
        if factor is None:
            raise WrongCode
        code = codes.normalized(typed)
        if not codes.is_of_authenticator(code):
            if not repository.use_recovery_code(session, user_id, codes.hash_of(code)):
                raise WrongCode
            left = repository.count_recovery_codes(session, user_id)
            note_before({_label(user_id): {"recovery_codes_left": left + 1}})
            note_after({_label(user_id): {"recovery_codes_left": left}})
            return
        secret, now = self._open(factor), utc_now().timestamp()
        step = codes.step_of(secret, code, now=now)
        if step is None or not repository.use_step(session, user_id, step, most_wrong=MOST_WRONG_CODES):
            is_locked = factor.wrong_codes >= MOST_WRONG_CODES
            raise WrongCode(Fault.LOCKED if is_locked else _fault(secret, code, now=now))

    def reseal(self, session: Session) -> int:
        """Seals with the present master key what the former one sealed; gives the number of rows.

        Raises SettingsError when one opens with neither.
        """
        outdated = [
            each for each in repository.list_factors(session) if not self._sealer.is_current(each.master_key_id)
        ]
        for factor in outdated:
            secret = self._sealer.open(
                factor.sealed_secret, master_key_id=factor.master_key_id, bound_to=factor.user_id
            )
            if secret is None:
                raise SettingsError(
                    f"The second factor of user {factor.user_id}, sealed with the master key {factor.master_key_id}, "
                    "opens with neither ESPALIER_MASTER_KEY nor ESPALIER_FORMER_MASTER_KEY; restore the right one."
                )
            factor.sealed_secret, factor.master_key_id = self._sealer.seal(secret, bound_to=factor.user_id)
        return len(outdated)

    def _open(self, factor: SecondFactor) -> bytes:
        secret = self._sealer.open(factor.sealed_secret, master_key_id=factor.master_key_id, bound_to=factor.user_id)
        if secret is None:
            # Another replica sealed it with a master key that this one is yet to be given.
            raise SecondFactorSealed
        return secret

    def _remove(self, session: Session, user: User) -> None:
        user.second_factor_since = None
        repository.replace_recovery_codes(session, user.id, [])
        if (factor := repository.find_factor(session, user.id)) is not None:
            session.delete(factor)

    def _renew_recovery_codes(self, session: Session, user_id: str) -> list[str]:
        shown = codes.new_recovery_codes()
        left = repository.count_recovery_codes(session, user_id)
        repository.replace_recovery_codes(session, user_id, [codes.hash_of(each) for each in shown])
        note_before({_label(user_id): {"recovery_codes_left": left}})
        note_after({_label(user_id): {"recovery_codes_left": len(shown)}})
        return shown


def issuer_of(public_url: str) -> str:
    """What authenticators call a platform: people may have accounts on several."""
    host = urlsplit(public_url).hostname
    return f"Espalier {host}" if host else "Espalier"


def _lock(session: Session, owner: Principal) -> User:
    user = users_repository.lock_user(session, owner.subject)
    if user is None or user.disabled:
        raise UserNotFound(owner.subject)
    return user


def _lock_enrolled(session: Session, owner: Principal) -> User:
    user = _lock(session, owner)
    if user.second_factor_since is None:
        raise SecondFactorNotEnrolled
    return user


def _fault(secret: bytes, code: str, *, now: float) -> Fault:
    return Fault.RAN_OUT if codes.has_run_out(secret, code, now=now) else Fault.WRONG


def _label(user_id: str) -> str:
    return f"recovery_codes/{user_id}"
