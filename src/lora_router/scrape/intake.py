"""Puts readings into the fleet: those of this process, and those that others have handed on.

There is one way for both, so that a reading has the same effect whoever read the pod. What calls of
this router changed on a pod comes the same way. No I/O.
"""

from collections.abc import Callable, Collection

from lora_router.fleet.catalog import Catalog, CatalogsFullError, ChangedCatalogs
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

    __slots__ = ("believed", "doubt", "read_at", "withdrawn")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.doubt = ListDoubt(clock)
        self.read_at = float("-inf")
        self.believed: Catalog | None = None
        """The last one, with what is withdrawn."""
        self.withdrawn: dict[str, None] = {}
        """Adapters that the fleet's list must not have, whatever the pod lists."""


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
        self._changed = ChangedCatalogs()
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

    # What calls of this router change

    def add_adapter(self, state: PodState, name: str, base: str) -> None:
        """Add an adapter to a pod's list: the pod has just loaded it.

        A list that was asked for before has no effect any more.

        Raises:
            RefusedReading: The pod has left, or the models of all pods need too much memory.
        """
        self._change(state, with_one=(name, base))

    def remove_adapter(self, state: PodState, name: str) -> None:
        """Remove an adapter from a pod's list: the pod has just unloaded it.

        Raises:
            RefusedReading: The pod has left.
        """
        self._lists_of(state).withdrawn.pop(name, None)
        self._change(state, without=name)

    def withdraw(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of the fleet's list of a pod until they are restored or removed.

        Raises:
            RefusedReading: The pod has left.
        """
        self._lists_of(state).withdrawn.update(dict.fromkeys(names))
        self._change(state)

    def restore(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters into the fleet's list of a pod again, as far as the pod lists them.

        Raises:
            RefusedReading: The pod has left, or the models of all pods need too much memory.
        """
        withdrawn = self._lists_of(state).withdrawn
        for name in names:
            withdrawn.pop(name, None)
        self._change(state)

    def _change(
        self, state: PodState, *, with_one: tuple[str, str] | None = None, without: str = ""
    ) -> None:
        if self._fleet.get(state.pod.name) is not state:
            self._lists.pop(state, None)
            raise RefusedReading("unknown-pod", f"pod {state.pod.name} has left")
        lists = self._lists_of(state)
        lists.read_at = self._clock()
        before = lists.believed or state.catalog
        lists.believed = self._changed.of(before, (without,), with_one)
        self._show(state, lists)

    def _show(self, state: PodState, lists: _Lists) -> None:
        listed = models = lists.believed or state.catalog
        withdrawn = [name for name in lists.withdrawn if name in listed.adapters]
        if withdrawn:
            models = self._changed.of(listed, withdrawn)
        try:
            self._fleet.put_models(state, models, None if models is listed else listed)
        except CatalogsFullError as error:
            raise RefusedReading("too-large", str(error)) from None

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
        # What the list adds is believed at once.
        lists.believed = models if loss is None else joined(state.catalog, models)
        self._show(state, lists)
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
