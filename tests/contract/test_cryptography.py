"""What the sources may use to hash, to encrypt and to draw lots: read from their syntax, so nothing is imported."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("libs/*/src", "services/*/src", "gateway/src", "trainer/src")
# Every library that we use for cryptography, and what of it. Another one, or another primitive, is a decision:
# write it down in docs/security.md, then here.
ALLOWED = {
    "argon2": {"PasswordHasher", "Type"},
    "argon2.exceptions": {"InvalidHashError", "VerificationError"},
    "cryptography.exceptions": {"InvalidTag"},
    "cryptography.hazmat.primitives.asymmetric.ed25519": {"Ed25519PrivateKey"},
    "cryptography.hazmat.primitives.asymmetric.rsa": {"RSAPublicKey"},
    "cryptography.hazmat.primitives.ciphers.aead": {"AESGCM"},
    "cryptography.hazmat.primitives.hashes": {"SHA256"},
    "cryptography.hazmat.primitives.kdf.hkdf": {"HKDF"},
}
LIBRARIES = {"argon2", "bcrypt", "Crypto", "Cryptodome", "cryptography", "jose", "nacl", "passlib", "pyaes", "rsa"}
HASHES = {"sha256", "blake2b"}
# HMAC with another digest: the codes of an authenticator, for apps know no other (RFC 6238). What weakens SHA-1 does
# not weaken HMAC-SHA-1, and a code is good for half a minute.
HMAC_SHA1 = {
    "libs/common/src/espalier_common/testing/authenticator.py",
    "services/auth/src/espalier_auth/second_factor/codes.py",
}
# `random` draws what is no secret: the ports of a machine, and pauses that spread those who ask again.
MAY_DRAW_LOTS = {
    "libs/client/src/espalier_client/local/ports.py",
    "libs/common/src/espalier_common/infra/processes.py",
    "services/auth/src/espalier_auth/throttle/gate.py",
    "services/model-registry/src/espalier_model_registry/decisions.py",
    "trainer/src/espalier_trainer/runner/ranks.py",
}
_Node = TypeVar("_Node", bound=ast.AST)


def test_only_these_primitives_of_these_libraries_are_used() -> None:
    used: dict[str, set[str]] = {}
    for _, node in _nodes(ast.ImportFrom):
        if node.module and node.module.split(".")[0] in LIBRARIES:
            used.setdefault(node.module, set()).update(alias.name for alias in node.names)
    assert {module: names - ALLOWED.get(module, set()) for module, names in used.items()} == {
        module: set() for module in used
    }
    whole = [
        f"{path}: {alias.name}"
        for path, node in _nodes(ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] in LIBRARIES
    ]
    assert whole == []
    assert "cryptography.hazmat.primitives.ciphers.aead" in used


def test_no_weak_hash_is_used() -> None:
    asked: set[str] = set()
    for path, node in _nodes(ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "hashlib":
            assert node.attr in {*HASHES, "file_digest"}, f"{path}: hashlib.{node.attr}"
            asked.add(node.attr)
    assert asked == HASHES | (asked & {"file_digest"})
    named = [f"{path}: {node.module}" for path, node in _nodes(ast.ImportFrom) if node.module == "hashlib"]
    assert named == []


def test_every_digest_of_hmac_names_sha256() -> None:
    calls = [
        (path, node)
        for path, node in _nodes(ast.Call)
        if isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "hmac"
        and node.func.attr in {"new", "digest"}
    ]
    assert calls
    for path, node in calls:
        said = {ast.unparse(part) for part in [*node.args, *(keyword.value for keyword in node.keywords)]}
        wanted = {"'sha1'"} if path in HMAC_SHA1 else {"'sha256'", "hashlib.sha256"}
        assert said & wanted, f"{path}:{node.lineno}"


def test_what_must_not_be_guessed_is_never_drawn_with_random() -> None:
    found = set()
    for path, node in [*_nodes(ast.Import), *_nodes(ast.ImportFrom)]:
        names = {node.module or ""} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
        if "random" in names:
            found.add(path)
    assert found == MAY_DRAW_LOTS


def _nodes(kind: type[_Node]) -> Iterator[tuple[str, _Node]]:
    for path, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield path, node


@cache
def _sources() -> list[tuple[str, ast.Module]]:
    paths = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"))) for path in paths]
