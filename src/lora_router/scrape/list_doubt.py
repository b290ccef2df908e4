"""Doubts a list of models that lost everything at once.

A server that is starting, reloading, or behind a broken proxy can answer with status 200 and an
empty list. If the router believed it, requests for all of the pod's adapters would be refused, and
clients take a 404 for final. A list is doubted if it

- has no model, although the last one had some; or
- has none of the adapters of the last one, which had at least two.

The last list stays in use until the loss has been reported for ``DOUBT_SECONDS``. It is believed at
once if something else confirms it: the server restarted, or it answered 404 for one of its models.
A single adapter that was unloaded is always believed at once.
"""

from collections.abc import Callable

from lora_router.fleet.catalog import Catalog, CatalogBuilder
from lora_router.fleet.pod_state import PodState

DOUBT_SECONDS = 30.0
"""How long a loss must be reported before it is believed."""

_MAX_JOINED = 5000
"""Models of a list that is joined with the last one."""


class ListDoubt:
    """What is known about the lists of one pod."""

    __slots__ = ("_clock", "_confirmed", "_since", "_started_at")

    def __init__(self, clock: Callable[[], float]) -> None:
        """Create it for a pod whose list has not been read.

        Args:
            clock: Returns seconds, monotonic.
        """
        self._clock = clock
        self._since: float | None = None
        self._confirmed = False
        self._started_at: float | None = None
        """The start of the server process when its last list was believed."""

    def confirm(self) -> None:
        """Believe the next list: the pod answered 404 for a model that it should serve."""
        self._confirmed = True

    def about(self, state: PodState, listed: Catalog) -> str | None:
        """Return why a pod's new list is not believed, or ``None`` if it is."""
        loss = _loss(state, listed)
        started_at = state.metrics.started_at if state.metrics is not None else None
        restarted = None not in (started_at, self._started_at) and started_at != self._started_at
        if loss is not None and not self._confirmed and not restarted:
            now = self._clock()
            if self._since is None:
                self._since = now
            if now - self._since < DOUBT_SECONDS:
                return loss
        self._since = None
        self._confirmed = False
        self._started_at = started_at
        return None


def joined(known: Catalog, listed: Catalog) -> Catalog:
    """Return the models of both.

    They are ``known`` itself if the list adds none, and if both are so long that joining them would
    take long or that lists which change each time would grow without bound.
    """
    if len(known) + len(listed) > _MAX_JOINED:
        return known
    if listed.base_models <= known.base_models and listed.adapters.keys() <= known.adapters.keys():
        return known
    builder = CatalogBuilder()
    for catalog in (known, listed):
        for name in catalog.base_models:
            builder.add(name, None)
        for name, base in catalog.adapters.items():
            builder.add(name, base)
    return builder.catalog()


def _loss(state: PodState, listed: Catalog) -> str | None:
    if not state.models_known:
        return None
    adapters = state.adapters
    if len(state.catalog) and not len(listed):
        return f"the list is empty; the last one had {len(state.catalog)} models"
    if len(adapters) > 1 and listed.adapters.keys().isdisjoint(adapters):
        return f"the list has none of the {len(adapters)} adapters of the last one"
    return None
