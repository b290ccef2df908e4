"""Puts readings into the fleet: those of this process, and those that others have handed on.

There is one way for both, so that a reading has the same effect whoever read the pod. No I/O.
"""

from collections.abc import Callable, Collection

from lora_router.fleet.catalog import Catalog, CatalogsFullError
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading
from lora_router.scrape.list_doubt import ListDoubt, joined

MAX_AGE_SECONDS = 5.0
"""A reading that is older is not used. The next one is on its way, or the pod is read here."""


class RefusedReading(Exception):  # noqa: N818 -- it is what it says
    """A reading has not been used."""

    def __init__(self, cause: str, message: str) -> None:
        self.cause = cause
        """``unknown-pod``, ``stale``, ``out-of-order``, ``too-large`` or ``doubted``."""
        super().__init__(message)

    @property
    def is_outdated(self) -> bool:
        """Whether nothing is wrong with the reading, but something else has overtaken it."""
        return self.cause in {"unknown-pod", "out-of-order"}


class _Lists:
    """What is known of one pod's lists of models."""

    __slots__ = ("doubt", "read_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.doubt = ListDoubt(clock)
        self.read_at = float("-inf")


class Intake:
    """The way of all readings into a fleet."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        """Create it.

        Args:
            fleet: Receives the readings.
            clock: The monotonic clock of the readings.
        """
        self._fleet = fleet
        self._clock = clock
        self._lists: dict[PodState, _Lists] = {}
        fleet.changes.pods.subscribe(self._follow)

    def receive(self, reading: Reading) -> None:
        """Put a reading of another process into the fleet.

        Raises:
            RefusedReading: It has not been used, or only in part.
        """
        if self._clock() - reading.read_at > MAX_AGE_SECONDS:
            raise RefusedReading("stale", f"the reading is older than {MAX_AGE_SECONDS:g} s")
        self.put(reading)

    def put(self, reading: Reading) -> None:
        """Put a reading of this process into the fleet.

        Raises:
            RefusedReading: It has not been used, or only in part.
        """
        state = reading.state
        if self._fleet.get(state.pod.name) is not state:
            raise RefusedReading("unknown-pod", f"pod {state.pod.name} has left")
        found = reading.found
        if isinstance(found, Catalog):
            self._put_models(reading, found)
            return
        if state.metrics is not None and reading.read_at < state.metrics.scraped_at:
            raise RefusedReading("out-of-order", "a later reading has been used")
        if isinstance(found, PodMetrics):
            self._fleet.put_metrics(state, found)
        elif found.page == "metrics":
            self._fleet.put_scrape_failure(state, self._clock(), unreachable=found.unreachable)

    def confirm_loss(self, state: PodState) -> None:
        """Believe a pod's next list: it answered 404 for a model that it should serve."""
        self._lists_of(state).doubt.confirm()

    def _put_models(self, reading: Reading, models: Catalog) -> None:
        state = reading.state
        # The pods file may have named the models in the meantime.
        if state.pod.models is not None:
            return
        lists = self._lists_of(state)
        if reading.read_at < lists.read_at:
            raise RefusedReading("out-of-order", "a later list has been used")
        lists.read_at = reading.read_at
        loss = lists.doubt.about(state, models)
        try:
            # What the list adds is believed at once.
            believed = models if loss is None else joined(state.catalog, models)
            self._fleet.put_models(state, believed)
        except CatalogsFullError as error:
            raise RefusedReading("too-large", str(error)) from None
        if loss is not None:
            raise RefusedReading("doubted", loss)

    def _lists_of(self, state: PodState) -> _Lists:
        lists = self._lists.get(state)
        if lists is None:
            lists = self._lists[state] = _Lists(self._clock)
        return lists

    def _follow(self, changed: Collection[PodState]) -> None:
        for state in changed:
            if not state.pod.ready or self._fleet.get(state.pod.name) is not state:
                self._lists.pop(state, None)
