"""What the architecture tests know of the tree: members, services, our own source files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth", "model-registry", "chat", "eval", "training-orchestrator", "prompt")
MEMBERS = ("libs/common", "libs/data", "libs/client", "trainer", "gateway", *(f"services/{name}" for name in SERVICES))
SERVICE_FILES = ("__main__", "settings", "models", "errors", "repository", "service", "rpc", "events")
# Where messages of the contract are read and written, and the other side of the wire is spoken to.
EDGE_FILES = ("__main__", "rpc", "events", "peers", "wire", "messages", "streams")
WIRE_PACKAGES = ("espalier", "google", "grpc", "nats")


def package(service: str) -> str:
    """Import name of a service: "model-registry" gives "espalier_model_registry"."""
    return f"espalier_{service.replace('-', '_')}"


def sources() -> list[Path]:
    """Our own Python files: no generated code, no tests."""
    return [p for member in MEMBERS for p in sorted((ROOT / member / "src").rglob("*.py"))]


def module(path: Path) -> str:
    """Import name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    names = parts[parts.index("src") + 1 :]
    return ".".join(names[:-1] if names[-1] == "__init__" else names)
