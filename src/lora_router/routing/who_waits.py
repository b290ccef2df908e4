"""Which requests wait in this router, and which slots are closed for them, as algorithms see it."""

from collections.abc import Collection, Sequence
from typing import Protocol

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodView
from lora_router.routing.overload import PATIENCE_SECONDS


class Waiting(Protocol):
    """Which requests wait in this router, as algorithms see it."""

    @property
    def held(self) -> int:
        """Requests that wait in this router."""

    def held_of(self, bases: BaseModels) -> int:
        """Return how many of them wait for pods that serve some base models."""

    @property
    def closed_slots(self) -> int:
        """How many slots are closed to further requests of the adapters in them."""

    @property
    def patience_seconds(self) -> float:
        """How long an adapter waits before a slot is closed for it."""

    def may_close(self, bases: BaseModels, slots: int, *, has_one: bool = False) -> bool:
        """Return whether a further slot may be closed on the pods of some base models.

        Args:
            bases: The base models.
            slots: The slots that could be closed.
            has_one: Whether one that is closed opens in exchange.
        """

    def closed_to(self, adapter: str) -> Collection[PodView]:
        """Return the pods that must get no further requests for ``adapter``.

        The adapter's slot there is being freed for an adapter that waits, or the adapter itself
        waits there for a slot.
        """

    def waits_on(self, adapter: str) -> Collection[PodView]:
        """Return the pods on which requests of this router for ``adapter`` wait for a slot."""

    def serving(self, model: str) -> Sequence[PodView]:
        """Return all ready pods that serve a model, also those that are no candidates."""

    def drains(self, adapter: str) -> bool:
        """Return whether a slot of ``adapter`` is being emptied, and not for long yet."""

    def is_closed(self, pod: PodView, adapter: str) -> bool:
        """Return whether ``pod`` must get no further requests for ``adapter``."""

    def is_closable(self, pod: PodView, adapter: str) -> bool:
        """Return whether the slot of ``adapter`` on ``pod`` may be closed now.

        It is not closed already, and no requests of the adapter are about to follow others there.
        """


class _NobodyWaits:
    held = closed_slots = 0
    patience_seconds = PATIENCE_SECONDS

    def held_of(self, _bases: BaseModels) -> int:
        return 0

    def may_close(self, _bases: BaseModels, _slots: int, *, has_one: bool = False) -> bool:
        return not has_one

    def closed_to(self, _adapter: str) -> Collection[PodView]:
        return ()

    def waits_on(self, _adapter: str) -> Collection[PodView]:
        return ()

    def serving(self, _model: str) -> Sequence[PodView]:
        return ()

    def drains(self, _adapter: str) -> bool:
        return False

    def is_closed(self, _pod: PodView, _adapter: str) -> bool:
        return False

    def is_closable(self, _pod: PodView, _adapter: str) -> bool:
        return True


NOBODY_WAITS: Waiting = _NobodyWaits()
