"""Field bounds: what passes, what is found, and under which path."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from espalier_common.rpc.validation import MAX_VIOLATIONS, violations


def found(message: Any) -> dict[str, str]:
    return {violation.field: violation.reason for violation in violations(message)}


def test_a_good_message_passes(contract: SimpleNamespace) -> None:
    good = contract.Ask(
        name="abc", id="018f6e1c-0b0a-7c3e-9d5a-0242ac120002", count=3, rate=0.5, raw=math.nan, tags=["a"], color=1
    )
    good.at.GetCurrentTime()
    assert violations(good) == []


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"name": ""}, "name", "REQUIRED"),
        ({"name": "a"}, "name", "TOO_SHORT"),
        ({"name": "abcdefghi"}, "name", "TOO_LONG"),
        ({"name": "ab1"}, "name", "PATTERN"),
        ({"name": "ab\n"}, "name", "PATTERN"),
        ({"id": "018F6E1C-0B0A-7C3E-9D5A-0242AC120002"}, "id", "UUID"),
        ({"id": "x"}, "id", "UUID"),
        ({"count": 11}, "count", "TOO_GREAT"),
        ({"count": -1}, "count", "TOO_SMALL"),
        ({"rate": math.inf}, "rate", "NOT_FINITE"),
        ({"rate": math.nan}, "rate", "NOT_FINITE"),
        ({"tags": ["a", "b", "c"]}, "tags", "TOO_MANY"),
        ({"tags": ["a", "long"]}, "tags[1]", "TOO_LONG"),
        ({"page_token": "a\x00"}, "page_token", "NUL"),
        ({"page_token": "a" * (1 << 20) + "b"}, "page_token", "TOO_LONG"),
        ({"weights": {"k": math.inf}}, "weights['k']", "NOT_FINITE"),
        ({"weights": {"k\x00": 1.0}}, "weights (key)", "NUL"),
        ({"color": 7}, "color", "UNKNOWN_VALUE"),
        ({"at": {"seconds": 1 << 60}}, "at", "OUT_OF_RANGE"),
        ({"at": {"nanos": -5}}, "at", "OUT_OF_RANGE"),
        ({"at": {"nanos": 1_000_000_000}}, "at", "OUT_OF_RANGE"),
        ({"children": [{"name": "ok"}, {"name": "no", "count": 99}]}, "children[1].count", "TOO_GREAT"),
    ],
)
def test_one_fault_is_found_under_its_path(
    contract: SimpleNamespace, fields: dict[str, Any], field: str, reason: str
) -> None:
    assert found(contract.Ask(**{"name": "ab", **fields})) == {field: reason}


def test_all_faults_are_found_at_once(contract: SimpleNamespace) -> None:
    assert set(found(contract.Ask(name="!", count=99, rate=-1.0))) == {"name", "count", "rate"}


def test_an_unset_number_passes_its_minimum(contract: SimpleNamespace) -> None:
    assert found(contract.Ask(name="ab")) == {}


def test_an_empty_list_is_fewer_than_its_least(contract: SimpleNamespace) -> None:
    assert found(contract.Batch()) == {"asks": "REQUIRED"}
    assert found(contract.Batch(asks=[{"name": "ab"}])) == {"asks": "TOO_FEW"}


def test_an_update_needs_its_resource_but_not_all_fields_of_it(contract: SimpleNamespace) -> None:
    assert found(contract.Update()) == {"ask": "REQUIRED"}
    assert found(contract.Update(ask={"count": 2})) == {}
    assert found(contract.Update(ask={"count": 99})) == {"ask.count": "TOO_GREAT"}


def test_findings_are_bounded(contract: SimpleNamespace) -> None:
    assert len(violations(contract.Ask(name="ab", children=[{} for _ in range(1000)]))) == MAX_VIOLATIONS
