"""Variables in the text of a prompt."""

import pytest

from espalier_prompt.templates import MAX_FAULTS, read_template


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("You are a helpful assistant.", []),
        ("Hello {{name}}, {{ greeting }} {{name}}", ["name", "greeting"]),
        ("{{a}}{{b}}", ["a", "b"]),
        ("关于{{主题}}，用{{ language_2 }}写", ["主题", "language_2"]),
        ('Answer as JSON: {"a": {"b": 1}} and { {x} }', []),
        ("}} {{x}} }}", ["x"]),
        ("{{\n  name\n}}", ["name"]),
    ],
)
def test_variables_are_found_once_in_order(text: str, variables: list[str]) -> None:
    template = read_template(text)

    assert template.variables == variables
    assert template.faults == []


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("Hello {{name", [(1, 7)]),
        ("one\ntwo {{}}", [(2, 5)]),
        ("{{first name}}\n{{2nd}}\n  {{a.b}}", [(1, 1), (2, 1), (3, 3)]),
        ("{{a {{b}} c", [(1, 1)]),
        ("{{{name}}}", [(1, 1)]),
        ("{{x|upper}} {{__class__()}}", [(1, 1), (1, 13)]),
        (f"{{{{{'x' * 65}}}}}", [(1, 1)]),
        ("{{ok}} 漢字 {{", [(1, 11)]),
    ],
)
def test_every_fault_is_told_with_its_place(text: str, places: list[tuple[int, int]]) -> None:
    assert [(fault.line, fault.column) for fault in read_template(text).faults] == places


def test_a_fault_says_what_to_do() -> None:
    assert str(read_template("Dear {{first name}}").faults[0]) == (
        "line 1, column 6: 'first name' is no name: use letters, digits and '_', not beginning with a digit"
    )


def test_a_text_of_braces_alone_is_read_at_once() -> None:
    assert len(read_template("{{" * 50_000).faults) == MAX_FAULTS
    assert len(read_template("{{ }}" * 20_000).faults) == MAX_FAULTS
    assert len(read_template("{{x}}" * 20_000).variables) == 1
