"""The models of several catalogs as one sorted list, made in steps.

A list of ten thousand models takes ten milliseconds. Requests must not wait for that, so a list is
made by a generator that yields after each piece of work of about a millisecond.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import chain, islice

from lora_router.fleet.catalog import Catalog

AT_ONCE = 2048
"""Models in one step."""


@dataclass(frozen=True, slots=True)
class ModelList:
    """Models by name, each once."""

    names: Sequence[str]
    """Sorted."""
    bases: Sequence[str | None]
    """The base model of each, or ``None``: it is a base model, or its base model is unknown."""


def list_in_steps(catalogs: Collection[Catalog]) -> Generator[None, None, ModelList]:
    """Return the union of some catalogs, in steps.

    A name that is a base model in one catalog and an adapter in another counts as an adapter, as it
    does for requests.
    """
    found: dict[str, str | None] = {}
    for catalog in catalogs:
        names = chain(dict.fromkeys(catalog.base_models).items(), catalog.adapters.items())
        while piece := tuple(islice(names, AT_ONCE)):
            for name, base in piece:
                if base is not None or name not in found:
                    found[name] = base
            yield
    runs: list[list[str]] = []
    names_left = iter(found)
    while run := sorted(islice(names_left, AT_ONCE)):
        runs.append(run)
        yield
    if len(runs) < 2:
        ordered = runs[0] if runs else []
    else:
        ordered, merged = [], merge(*runs)
        while part := list(islice(merged, AT_ONCE)):
            ordered += part
            yield
    bases: list[str | None] = []
    for start in range(0, len(ordered), 8 * AT_ONCE):
        bases += map(found.__getitem__, ordered[start : start + 8 * AT_ONCE])
        yield
    return ModelList(ordered, bases)
