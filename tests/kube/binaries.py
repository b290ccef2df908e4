"""Finds the programs that are not on a package index, or builds them from Go modules.

Each has a folder below ``scripts/go`` with a ``go.mod`` and a ``go.sum``, which pin every byte of
its source. What is built is kept in the user's cache folder, by a digest of those two files and the
linker's flags.

Needs nothing but Python, so that CI can build before anything is installed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.surroundings import users_environment

_MODULES = Path(__file__).parents[2] / "scripts" / "go"
API_SERVER = ("etcd", "kube-apiserver")
GATEWAY_TRANSLATOR = ("egctl",)
CONFORMANCE = ("h2spec",)
KUBECTL = ("kubectl",)
_KUBERNETES = ("k8s.io/kubernetes", "k8s.io/component-base/version.gitVersion")
_VERSIONS = {"kube-apiserver": _KUBERNETES, "kubectl": _KUBERNETES}
"""Programs that need their version at build time: the module that has it, and the variable."""


class MissingError(Exception):
    """A program is missing and cannot be built. The message has the cause."""


def cache_folder() -> Path:
    """The folder of the programs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lora-router" / "bin"


def find(name: str) -> Path | None:
    """Return a program that exists already."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (given := Path(assets) / name).is_file():
        return given
    built = _place(name)
    return built if built.is_file() else None


def why_not(names: tuple[str, ...]) -> str | None:
    """Return why the programs cannot be used, or ``None``."""
    missing = [name for name in names if find(name) is None]
    if not missing:
        return None
    return f"no {' and no '.join(missing)}: run scripts/kube-test-server build (needs Go)"


def build(name: str) -> Path:
    """Build a program unless it exists.

    Raises:
        MissingError: Go is not there, is too old, or the build failed.
    """
    found = find(name)
    if found is not None:
        return found
    module = _MODULES / name
    go = shutil.which("go")
    if go is None:
        raise MissingError(f"{name} cannot be built: there is no Go")
    text = (module / "go.mod").read_text()
    package = _one(r"^tool (\S+)$", text)
    wanted, here = _one(r"^go (\S+)$", text), _go_version(go)
    if _as_numbers(here) < _as_numbers(wanted):
        raise MissingError(f"{name} cannot be built: it needs Go {wanted}, and this is {here}")
    target = _place(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Build under another name: a concurrent test run must not find an incomplete program.
    partial = target.with_name(f"{name}.{os.getpid()}")
    try:
        subprocess.run(
            [go, "build", "-trimpath", f"-ldflags={_linker_flags(name)}", "-o", partial, package],
            cwd=module,
            env={**os.environ, **users_environment(), "CGO_ENABLED": "0", "GOWORK": "off"},
            check=True,
        )
        partial.rename(target)
    except subprocess.CalledProcessError as error:
        raise MissingError(f"{name} cannot be built: go ended with {error.returncode}") from None
    finally:
        partial.unlink(missing_ok=True)
    return target


def module_folder(name: str, module: str) -> Path | None:
    """Return the folder of a module that ``scripts/go/NAME`` pins, if Go is installed.

    For data that a module has and no package: the definitions of custom resources.
    """
    go = shutil.which("go")
    if go is None:
        return None
    # `go list` knows the pinned version, and `download` checks it against go.sum.
    for command in (["mod", "download", module], ["list", "-m", "-f", "{{.Dir}}", module]):
        done = subprocess.run(
            [go, *command],
            cwd=_MODULES / name,
            env={**os.environ, **users_environment()},
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.stderr.write(done.stderr)
            return None
    return Path(done.stdout.strip())


def _place(name: str) -> Path:
    digest = hashlib.sha256()
    for file in ("go.mod", "go.sum"):
        digest.update((_MODULES / name / file).read_bytes())
    digest.update(_linker_flags(name).encode())
    return cache_folder() / digest.hexdigest()[:16] / name


def _linker_flags(name: str) -> str:
    flags = "-s -w"
    if name in _VERSIONS:
        module, variable = _VERSIONS[name]
        text = (_MODULES / name / "go.mod").read_text()
        version = _one(rf"^\s*{re.escape(module)} (v\S+)", text)
        flags += f" -X {variable}={version}"
    return flags


def _go_version(go: str) -> str:
    done = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True)
    return done.stdout.strip().removeprefix("go")


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _one(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None
    return match[1]
