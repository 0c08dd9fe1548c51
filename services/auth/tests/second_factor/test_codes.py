"""The codes themselves: RFC 4226 and RFC 6238 to the letter, and recovery codes that nobody guesses."""

from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from espalier_auth.second_factor.codes import (
    RECOVERY_CODES,
    code_of,
    has_run_out,
    hash_of,
    is_of_authenticator,
    new_recovery_codes,
    new_secret,
    normalized,
    otpauth_uri,
    step_of,
    to_base32,
)

OF_THE_RFCS = b"12345678901234567890"


@pytest.mark.parametrize(
    ("count", "code"),
    enumerate(["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]),
)
def test_the_codes_are_those_of_rfc_4226(count: int, code: str) -> None:
    assert code_of(OF_THE_RFCS, count) == code


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1_111_111_109, "07081804"),
        (1_111_111_111, "14050471"),
        (1_234_567_890, "89005924"),
        (2_000_000_000, "69279037"),
        (20_000_000_000, "65353130"),
    ],
)
def test_the_codes_are_those_of_rfc_6238(seconds: int, code: str) -> None:
    assert code_of(OF_THE_RFCS, seconds // 30, digits=8) == code
    # Of six digits they are the same number's last ones.
    assert step_of(OF_THE_RFCS, code[-6:], now=float(seconds)) == seconds // 30


def test_a_code_lives_for_thirty_seconds_and_is_known_for_a_while_as_one_that_ran_out() -> None:
    code, times = code_of(OF_THE_RFCS, 100), (2999.9, 3000.0, 3029.9, 3030.0, 3329.9, 3330.0)

    assert [step_of(OF_THE_RFCS, code, now=now) for now in times] == [None, 100, 100, None, None, None]
    # Of the one that comes next nothing is said: it will be good.
    assert [has_run_out(OF_THE_RFCS, code, now=now) for now in times] == [False, False, False, True, True, False]


@pytest.mark.parametrize("typed", ["", "7", "75522", "7552244", "se\x0b\U000a3f4fqß", "٧٥٥٢٢٤", "755224\n"])
def test_what_is_no_code_is_a_wrong_one(typed: str) -> None:
    assert step_of(OF_THE_RFCS, typed, now=59.0) is None
    assert not has_run_out(OF_THE_RFCS, typed, now=3000.0)


def test_codes_are_taken_as_people_group_them_and_told_apart_by_their_form() -> None:
    assert normalized(" 755 224 ") == "755224"
    assert normalized("k3t7-QWZB\u00a0aaaa") == "K3T7QWZBAAAA"
    assert is_of_authenticator("755224")
    assert not any(is_of_authenticator(text) for text in ("75522", "7552240", "75522A", "٧٥٥٢٢٤", ""))


def test_an_app_finds_in_the_address_all_that_it_needs() -> None:
    address = urlsplit(otpauth_uri(OF_THE_RFCS, username="mia.b", issuer="Espalier llm.example.org"))

    assert (address.scheme, address.netloc, unquote(address.path)) == (
        "otpauth", "totp", "/Espalier llm.example.org:mia.b"
    )  # fmt: skip
    assert parse_qs(address.query) == {
        "secret": ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"],
        "issuer": ["Espalier llm.example.org"],
        "algorithm": ["SHA1"],
        "digits": ["6"],
        "period": ["30"],
    }


def test_secrets_have_160_random_bits_and_recovery_codes_120_and_none_comes_twice() -> None:
    secrets = {to_base32(new_secret()) for _ in range(100)}
    assert len(secrets) == 100
    assert {len(text) for text in secrets} == {32}  # of five bits

    codes = [code for _ in range(20) for code in new_recovery_codes()]
    assert len(set(codes)) == 20 * RECOVERY_CODES
    assert {len(normalized(code)) for code in codes} == {24}
    assert len({letter for code in codes for letter in normalized(code)}) == 32


def test_a_recovery_code_is_the_same_however_it_is_typed() -> None:
    assert hash_of("K3T7 QWZB") == hash_of("k3t7-qwzb") != hash_of("k3t7-qwzc")
