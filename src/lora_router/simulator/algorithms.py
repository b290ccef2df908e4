"""The algorithms that a simulation can run: those that are installed, and ``policies``."""

from collections.abc import Iterable

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.registry import UnknownAlgorithmError, installed, load_algorithms
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.table import POLICIES


def known_algorithms() -> list[str]:
    """Return the names of all algorithms that can be simulated, in order.

    Raises:
        BrokenAlgorithmError: Two distributions claim the same name.
    """
    return sorted({*installed(), *POLICIES})


def check_known(names: Iterable[str]) -> None:
    """Check that algorithms can be simulated.

    Raises:
        UnknownAlgorithmError: One of them is neither installed nor a published policy.
        BrokenAlgorithmError: Two distributions claim the same name.
    """
    known = known_algorithms()
    for name in names:
        if name not in known:
            raise UnknownAlgorithmError(name, known)


def make_algorithm(
    name: str, options: AlgorithmOptions, engine: EngineOptions | None = None
) -> Algorithm:
    """Return an algorithm. An installed one comes before a policy of the same name.

    Args:
        name: Its name.
        options: Its options.
        engine: The pods, for policies that know their speed. ``None``: the default ones.

    Raises:
        UnknownAlgorithmError: There is none of that name.
        BrokenAlgorithmError: An installed algorithm cannot be loaded or created.
    """
    check_known([name])
    if name in installed():
        return load_algorithms(options)[name]
    return POLICIES[name].make(options, engine or EngineOptions())
