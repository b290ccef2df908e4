"""How far the fleet is as declared: counted in steps, now and then."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice

from lora_router.adapters.slices import REST, Slices, Work
from lora_router.clock import Clock
from lora_router.fleet.fleet import Fleet
from lora_router.steps import Steps

_NAMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """How far the fleet is as declared."""

    declared: int = 0
    loaded: int = 0
    """Adapters that at least one ready pod lists."""
    missing: int = 0
    """Adapters that belong somewhere, and that no ready pod lists."""
    unplaced: int = 0
    """Adapters that belong nowhere: no pod is fit, or none has room."""


class Surveys:
    """Counts again after changes."""

    def __init__(self, fleet: Fleet, clock: Clock, slices: Slices) -> None:
        """Create it. Nothing has been counted yet.

        Args:
            fleet: The fleet.
            clock: The time.
            slices: Does the work.
        """
        self._fleet = fleet
        self._clock = clock
        self._slices = slices
        self.last = Survey()
        """The last one that is complete."""
        self._is_due = True
        self._rests_until = float("-inf")

    def changed(self) -> None:
        """Note that the fleet, or what belongs where, changed."""
        self._is_due = True

    def begin_if_due(self, declared: Collection[str], placed: Callable[[str], bool]) -> None:
        """Begin to count, unless nothing changed, or other work goes on.

        Args:
            declared: The served names of the declared adapters.
            placed: Returns whether an adapter belongs somewhere.
        """
        if self._is_due and not self._slices and self._clock.now() >= self._rests_until:
            self._is_due = False
            self._slices.do(self._count(declared, placed))

    def _count(self, declared: Collection[str], placed: Callable[[str], bool]) -> Work:
        began = self._clock.now()
        self.last = yield from survey_in_steps(self._fleet, declared, placed)
        now = self._clock.now()
        self._rests_until = now + REST * (now - began)


def survey_in_steps(
    fleet: Fleet, declared: Collection[str], placed: Callable[[str], bool]
) -> Steps[Survey]:
    """Find out how far the fleet is as declared.

    Args:
        fleet: The fleet.
        declared: The served names of the declared adapters.
        placed: Returns whether an adapter belongs somewhere.
    """
    loaded = missing = unplaced = 0
    names = tuple(declared)
    left = iter(names)
    while some := tuple(islice(left, _NAMES_AT_ONCE)):
        for name in some:
            if fleet.serving(name).pods:
                loaded += 1
            elif placed(name):
                missing += 1
            else:
                unplaced += 1
        yield
    return Survey(len(names), loaded, missing, unplaced)
