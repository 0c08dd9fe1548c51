"""The state of a sign-in is good with its browser and its provider only, and for ten minutes."""

import base64
import hashlib

import pytest

from espalier_auth.oidc import login_state
from espalier_auth.oidc.login_state import LoginStates

STATES = LoginStates(b"k" * 32)


def test_a_state_comes_back_with_the_same_nonce_and_verifier() -> None:
    pending, binding = STATES.begin("corporate")
    again = STATES.resume(pending.state, provider="corporate", binding=binding)

    assert again == pending
    digest = hashlib.sha256(pending.verifier.encode()).digest()
    assert pending.challenge == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert len(pending.verifier) >= 43
    assert len({pending.nonce, pending.verifier, pending.state, binding}) == 4


def test_a_state_is_refused_with_another_binding_provider_or_key() -> None:
    pending, binding = STATES.begin("corporate")
    _, other = STATES.begin("corporate")

    assert STATES.resume(pending.state, provider="corporate", binding=other) is None
    assert STATES.resume(pending.state, provider="another", binding=binding) is None
    assert LoginStates(b"x" * 32).resume(pending.state, provider="corporate", binding=binding) is None


@pytest.mark.parametrize("change", ["", "x", "a.b.c", "a" * 1024, "ü.1.ü", "{}.1.{}"])
def test_a_made_up_state_is_refused(change: str) -> None:
    assert STATES.resume(change, provider="corporate", binding="b") is None


def test_a_state_whose_time_was_changed_is_refused() -> None:
    pending, binding = STATES.begin("corporate")
    head, expires, signature = pending.state.split(".")

    assert STATES.resume(f"{head}.{int(expires) + 1}.{signature}", provider="corporate", binding=binding) is None


def test_a_state_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    pending, binding = STATES.begin("corporate")
    monkeypatch.setattr(login_state.time, "time", lambda: pending.expires_at)

    assert STATES.resume(pending.state, provider="corporate", binding=binding) is None
