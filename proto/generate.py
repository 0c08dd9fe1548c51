"""Generates the Python code of the contract into proto/gen: `python proto/generate.py [--check]`.

With --check nothing is written; the exit status is 1 when the committed code is not what the protos give.
"""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent
GENERATED = PROTO / "gen"


def sources() -> list[str]:
    """The .proto files of the contract, relative to proto/."""
    return sorted(path.relative_to(PROTO).as_posix() for path in (PROTO / "espalier").rglob("*.proto"))


def generate(target: Path) -> None:
    """Writes messages, typed stubs and services below `target`, and one descriptor set with all comments."""
    bin_dir = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO}",
        f"--proto_path={PROTO / 'third_party'}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out=quiet:{target}",
        f"--descriptor_set_out={target / 'espalier' / 'descriptors.binpb'}",
        "--include_imports",
        "--include_source_info",
        *sources(),
    ]
    (target / "espalier").mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True)
    drop_empty_services(target)
    (target / "espalier" / "py.typed").touch()


def drop_empty_services(target: Path) -> None:
    """Removes the service modules of files that declare no service, which protoc writes all the same."""
    for path in target.rglob("*_pb2_grpc.py"):
        if "class " not in path.read_text("utf-8"):
            path.unlink()
            path.with_suffix(".pyi").unlink(missing_ok=True)


def same(left: Path, right: Path) -> bool:
    """Whether two trees hold the same files with the same bytes (Python caches left out)."""
    names = [
        {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
        for root in (left, right)
    ]
    return names[0] == names[1] and all(filecmp.cmp(left / n, right / n, shallow=False) for n in names[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        if arguments.check:
            fresh = same(Path(scratch) / "espalier", GENERATED / "espalier")
            if not fresh:
                sys.stderr.write("proto/gen is stale: run `make proto` and commit it\n")
            return 0 if fresh else 1
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(scratch, GENERATED)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
