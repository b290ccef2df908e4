"""Finding algorithms by name, through Python entry points."""

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions

GROUP = "lora_router.algorithms"


class UnknownAlgorithmError(LookupError):
    """No algorithm has that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = sorted(known)
        super().__init__(f"unknown algorithm {name!r}; known are {', '.join(self.known)}")


class BrokenAlgorithmError(RuntimeError):
    """An entry point is there, but what it names cannot be loaded or made."""


def installed() -> Mapping[str, EntryPoint]:
    """Return the entry points of all installed algorithms by name, ours and others'.

    Raises:
        BrokenAlgorithmError: Two distributions claim the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise BrokenAlgorithmError(
                f"algorithm {entry.name!r} is claimed by {other.value} and by {entry.value}; "
                "uninstall one of them"
            )
    return found


def check_installed(names: Iterable[str]) -> None:
    """Make sure that algorithms are there, before anything is begun with them.

    Raises:
        UnknownAlgorithmError: One of them is not.
        BrokenAlgorithmError: Two distributions claim the same name.
    """
    known = installed()
    for name in names:
        if name not in known:
            raise UnknownAlgorithmError(name, known)


def load_algorithms(options: AlgorithmOptions) -> dict[str, Algorithm]:
    """Make every installed algorithm, so that a request can ask for any of them.

    Raises:
        BrokenAlgorithmError: One of them cannot be imported or made; says which and why.
    """
    return {name: _make(entry, options) for name, entry in sorted(installed().items())}


def _make(entry: EntryPoint, options: AlgorithmOptions) -> Algorithm:
    try:
        algorithm: Algorithm = entry.load()(options)
    except Exception as error:
        raise BrokenAlgorithmError(
            f"algorithm {entry.name!r} ({entry.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if getattr(algorithm, "name", None) != entry.name:
        raise BrokenAlgorithmError(
            f"algorithm {entry.name!r} ({entry.value}) calls itself "
            f"{getattr(algorithm, 'name', None)!r}; the two names must be the same"
        )
    return algorithm
