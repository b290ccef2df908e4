"""Which code decides the outcome of a simulated run, so that only what changed is run again.

It is the code of the simulation, with all that it imports, and the code of the policy, with all
that it imports. A change of one policy therefore leaves the runs of the others as they are.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import grimp

from lora_router.routing.registry import installed
from lora_router.simulator.policies.table import POLICIES

_PACKAGE = "lora_router"
_SOURCES = Path(__file__).parent.parent / "src"
_SIMULATION = tuple(
    f"{_PACKAGE}.simulator.{name}" for name in ("fleet_simulation", "scenario", "summary")
)


@lru_cache
def code_version(policy: str) -> str:
    """Return a digest of the code that decides the outcome of a policy's runs.

    The code of another distribution is not part of it.

    Args:
        policy: The name of an installed algorithm, or of a published policy of the simulator.
    """
    digest = hashlib.sha256()
    for module in sorted(_with_imports({*_SIMULATION, *_modules_of(policy)})):
        digest.update(module.encode())
        digest.update(_source_of(module).read_bytes())
    return digest.hexdigest()[:12]


def _modules_of(policy: str) -> Iterator[str]:
    if policy in installed():
        yield installed()[policy].module
    elif policy in POLICIES:
        yield POLICIES[policy].module


def _with_imports(modules: Iterable[str]) -> set[str]:
    graph = _graph()
    ours = {module for module in modules if module in graph.modules}
    return ours.union(*(graph.find_upstream_modules(module) for module in ours))


@lru_cache(maxsize=1)
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(_PACKAGE, cache_dir=None, exclude_type_checking_imports=True)


def _source_of(module: str) -> Path:
    path = _SOURCES.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
