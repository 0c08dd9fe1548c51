"""Variables in the text of a prompt: `{{name}}`, and nothing else; a `{` or `}}` that opens nothing is plain text.

Pure functions. Nothing is evaluated, here or when the text is filled in: a variable is replaced by its value, once.
"""

from dataclasses import dataclass

MAX_NAME_LENGTH = 64
# A text that is no template at all may have thousands of faults; nobody reads more.
MAX_FAULTS = 20


@dataclass(frozen=True)
class SyntaxFault:
    """Something wrong with a variable; line and column count characters from 1."""

    line: int
    column: int
    description: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.description}"


@dataclass(frozen=True)
class Template:
    """What is in a text: names of its variables, each once, in order of appearance; and its faults, at most 20."""

    variables: list[str]
    faults: list[SyntaxFault]


def read_template(text: str) -> Template:
    """Finds the variables of a text, and its faults at once."""
    variables: dict[str, None] = {}
    faults: list[SyntaxFault] = []
    position = 0
    while len(faults) < MAX_FAULTS and (start := text.find("{{", position)) >= 0:
        end = text.find("}}", start + 2)
        nested = text.find("{{", start + 2, end if end >= 0 else len(text))
        if end < 0 or nested >= 0:
            faults.append(_fault(text, start, "'{{' opens a variable and no '}}' closes it"))
            position = start + 2 if nested < 0 else nested
            continue
        name = text[start + 2 : end].strip()
        if complaint := _complaint_about(name):
            faults.append(_fault(text, start, complaint))
        else:
            variables[name] = None
        position = end + 2
    return Template(list(variables), faults)


def _complaint_about(name: str) -> str:
    if not name:
        return "'{{}}' has no name between its braces"
    if not name.isidentifier():
        shown = name if len(name) <= 40 else f"{name[:40]}…"
        return f"{shown!r} is no name: use letters, digits and '_', not beginning with a digit"
    if len(name) > MAX_NAME_LENGTH:
        return f"the name has {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed"
    return ""


def _fault(text: str, position: int, description: str) -> SyntaxFault:
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    return SyntaxFault(line, column, description)
