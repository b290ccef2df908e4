"""Finds algorithms by name, through Python entry points."""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points

from lora_router.routing.algorithm import (
    INTERFACE_VERSION,
    Algorithm,
    AlgorithmFactory,
    AlgorithmOptions,
)

GROUP = "lora_router.algorithms"


class UnknownAlgorithmError(LookupError):
    """No algorithm has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = sorted(known)
        super().__init__(f"unknown algorithm {name!r}; known are {', '.join(self.known)}")


class BrokenAlgorithmError(RuntimeError):
    """An entry point exists, but its algorithm cannot be loaded or created."""


class UnknownOptionError(ValueError):
    """``algorithm_options`` contains a name that no installed algorithm reads."""

    def __init__(self, name: str, known: Mapping[str, str]) -> None:
        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(f"{option} (of {known[option]})" for option in sorted(known))
        super().__init__(
            f"algorithm_options: unknown option {name!r}; {hint}"
            f"the installed algorithms know {listed or 'none'}"
        )


def installed() -> Mapping[str, EntryPoint]:
    """Return the entry points of all installed algorithms by name, built-in ones and plug-ins.

    Raises:
        BrokenAlgorithmError: Two distributions claim the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in _entry_points(tuple(sys.path)):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BrokenAlgorithmError(
                f"algorithm {entry.name!r} is claimed by {other.value} and by {entry.value}; "
                "uninstall one of them"
            )
    return found


@lru_cache(maxsize=1)
def _entry_points(_path: tuple[str, ...]) -> EntryPoints:
    """Return the entry points of all distributions on the path, which are many files to read."""
    return entry_points(group=GROUP)


def check_installed(names: Iterable[str]) -> None:
    """Check that algorithms are installed, before anything is started with them.

    Raises:
        UnknownAlgorithmError: One of them is not installed.
        BrokenAlgorithmError: Two distributions claim the same name.
    """
    known = installed()
    for name in names:
        if name not in known:
            raise UnknownAlgorithmError(name, known)


def load_algorithms(options: AlgorithmOptions) -> dict[str, Algorithm]:
    """Return an instance of every installed algorithm, so that a request can ask for any of them.

    Raises:
        BrokenAlgorithmError: One of them cannot be imported or created. The message names it and
            the cause.
        UnknownOptionError: ``options.extra`` contains a name that no algorithm declares.
    """
    entries = sorted(installed().items())
    factories = {name: _factory(entry) for name, entry in entries}
    _check_options(options.extra, factories)
    return {name: _make(entry, factories[name], options) for name, entry in entries}


def _factory(entry: EntryPoint) -> AlgorithmFactory:
    try:
        factory: AlgorithmFactory = entry.load()
    except (Exception, SystemExit) as error:
        raise _cannot_load(entry, error) from error
    version = getattr(factory, "interface_version", 1)
    if version not in range(1, INTERFACE_VERSION + 1):
        raise BrokenAlgorithmError(
            f"algorithm {entry.name!r} ({entry.value}) is written for version {version!r} of the "
            f"algorithm interface; this router has version {INTERFACE_VERSION} and accepts 1 to "
            f"{INTERFACE_VERSION}"
        )
    return factory


def _check_options(extra: Mapping[str, str], factories: Mapping[str, AlgorithmFactory]) -> None:
    known: dict[str, str] = {}
    for algorithm, factory in factories.items():
        known |= dict.fromkeys(getattr(factory, "option_names", ()), algorithm)
    for name in extra:
        if name not in known:
            raise UnknownOptionError(name, known)


def _make(entry: EntryPoint, factory: AlgorithmFactory, options: AlgorithmOptions) -> Algorithm:
    try:
        algorithm = factory(options)
    except (Exception, SystemExit) as error:
        raise _cannot_load(entry, error) from error
    if getattr(algorithm, "name", None) != entry.name:
        raise BrokenAlgorithmError(
            f"algorithm {entry.name!r} ({entry.value}) calls itself "
            f"{getattr(algorithm, 'name', None)!r}; the two names must be the same"
        )
    return algorithm


def _cannot_load(entry: EntryPoint, error: BaseException) -> BrokenAlgorithmError:
    return BrokenAlgorithmError(
        f"algorithm {entry.name!r} ({entry.value}) cannot be loaded: "
        f"{type(error).__name__}: {error}"
    )
