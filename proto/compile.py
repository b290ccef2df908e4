"""Compile ``proto/`` into the ``pb`` packages below ``src`` with grpcio-tools: ``make proto``."""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.proto"))


def compile_into(out: Path) -> None:
    """Write the generated modules and their type stubs below ``out``."""
    well_known = files("grpc_tools") / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{well_known}",
        f"--python_out={out}",
        f"--pyi_out={out}",
    ]
    if protoc.main([*arguments, *SOURCES]) != 0:
        raise SystemExit("protoc failed; its message is above")


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "src")
