"""Slots that are closed to further requests of the adapter in them, so that others get them."""

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.counts import change
from lora_router.routing.slot_closing import in_flight

NEVER = float("-inf")
_ASSUMED_SECONDS = 5.0
"""How long a slot takes to be empty, until one was."""
_KEPT_SHARE = 0.9
"""What is left of the longest time with each slot that was empty sooner."""


class Owner(Protocol):
    """What a slot is closed for: a queue of held requests, or an adapter that waits on the pod."""

    closing: tuple[PodState, str] | None
    """The slot: a pod, and the adapter in it."""


class ClosedSlots:
    """The closed slots of this router. Each slot is closed for at most one owner."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Begin without any.

        Args:
            now: Returns the time.
        """
        self._now = now
        self.seconds = _ASSUMED_SECONDS
        """The longest time that a slot took to be empty lately."""
        self._by_adapter: dict[str, dict[PodView, Owner]] = {}
        self._by_pod: dict[PodState, dict[str, Owner]] = {}
        self._since: dict[tuple[PodView, str], float] = {}
        """When each slot was closed."""
        self._bases: dict[tuple[PodView, str], BaseModels] = {}
        """The base models of its pod then."""
        self._counts: dict[BaseModels, int] = {}
        """The closed slots by base models."""

    def __len__(self) -> int:
        return len(self._since)

    def count_of(self, bases: BaseModels) -> int:
        """Return how many slots are closed on pods that serve some base models."""
        return self._counts.get(bases, 0)

    def closed_to(self, adapter: str) -> Collection[PodView]:
        """Return the pods that must get no further requests for an adapter.

        They are those on which its slot is closed, and those on which it waits for one.
        """
        return self._by_adapter.get(adapter, ())

    def closed_since(self, adapter: str) -> float:
        """Return when a slot of an adapter was closed most recently, of those that still are."""
        return max(
            (self._since.get((pod, adapter), NEVER) for pod in self.closed_to(adapter)),
            default=NEVER,
        )

    def seconds_left(self, adapter: str) -> float | None:
        """Return how long a slot of an adapter will probably be emptied; ``None``: none is."""
        since = self.closed_since(adapter)
        return None if since == NEVER else max(1.0, self.seconds - (self._now() - since))

    def wait_on(self, pod: PodState, adapter: str, owner: Owner) -> None:
        """Close a pod to further requests of an adapter that waits there for a slot."""
        self._by_adapter.setdefault(adapter, {})[pod] = owner

    def wait_no_more_on(self, pod: PodState, adapter: str) -> None:
        """Undo ``wait_on``."""
        self._drop(pod, adapter)

    def close(self, owner: Owner, slot: tuple[PodState, str], now: float) -> Owner | None:
        """Close a slot for an owner.

        If two owners name the same slot, the later one gets it, and the other one is returned.
        """
        pod, adapter = slot
        other = self._by_pod.get(pod, {}).get(adapter)
        if other is not None:
            self.reopen(other)
        owner.closing = slot
        self._since[slot] = now
        self._bases[slot] = pod.base_models
        change(self._counts, pod.base_models, 1)
        self._by_adapter.setdefault(adapter, {})[pod] = owner
        self._by_pod.setdefault(pod, {})[adapter] = owner
        return other

    def reopen(self, owner: Owner) -> str | None:
        """Reopen the slot that is closed for an owner, if any; return the adapter in it."""
        if owner.closing is None:
            return None
        pod, adapter = owner.closing
        owner.closing = None
        since = self._since.pop((pod, adapter))
        change(self._counts, self._bases.pop((pod, adapter)), -1)
        if not in_flight(pod, adapter):
            self.seconds = max(self._now() - since, _KEPT_SHARE * self.seconds)
        self._drop(pod, adapter)
        adapters = self._by_pod[pod]
        del adapters[adapter]
        if not adapters:
            del self._by_pod[pod]
        return adapter

    def hand_over(self, owner: Owner, heir: Owner) -> str | None:
        """Keep the slot that is closed for one owner closed for another.

        Return the adapter in the slot that was closed for the other, which is open now.
        """
        reopened = self.reopen(heir)
        heir.closing, owner.closing = owner.closing, None
        if heir.closing is not None:
            pod, adapter = heir.closing
            # The adapter may have waited on the pod since, which took its entry.
            self._by_adapter.setdefault(adapter, {})[pod] = heir
            self._by_pod[pod][adapter] = heir
        return reopened

    def empty_on(self, pod: PodState) -> Iterator[Owner]:
        """Yield the owners whose closed slot on a pod has no request left."""
        for adapter, owner in self._by_pod.get(pod, {}).items():
            if not in_flight(pod, adapter):
                yield owner

    def on(self, pod: PodState) -> Collection[Owner]:
        """Return the owners for which a slot on a pod is closed."""
        return self._by_pod.get(pod, {}).values()

    def owners(self) -> Iterator[Owner]:
        """Yield the owners of all closed slots."""
        for owners in self._by_pod.values():
            yield from owners.values()

    def adapters_on(self, pod: PodState) -> Collection[str]:
        """Return the adapters in the closed slots of a pod."""
        return self._by_pod.get(pod, {}).keys()

    def _drop(self, pod: PodState, adapter: str) -> None:
        pods = self._by_adapter.get(adapter)
        if pods is not None and pods.pop(pod, None) is not None and not pods:
            del self._by_adapter[adapter]
