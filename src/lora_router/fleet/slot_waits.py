"""Whether a request that a page shows as deferred may wait for an adapter slot.

vLLM counts a request as deferred if anything but a lack of capacity holds it back: the limit of
adapter slots, but also a transfer of KV blocks, the compilation of a grammar, or a streaming
session without input. The page says neither the reason nor the adapter.

vLLM holds a request back for a slot only in a step in which as many adapters run as there are
slots. So a deferred request may wait for a slot only if

- as many requests run as there are slots, and
- as many adapters are in flight. An adapter that no ledger knows is listed only from its first
  token on. So each request that nobody explains may be for a further adapter.

In all other cases a deferred request is load, as any request that waits.
"""

from collections.abc import Collection

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.strangers import Strangers


class SlotWaits:
    """Looks at the pages of one pod. Only the beliefs write it."""

    __slots__ = ("_may_be_full",)

    def __init__(self) -> None:
        self._may_be_full = False
        """Whether all slots may have been taken when the last page was made."""

    def scraped(
        self,
        metrics: PodMetrics,
        slots: int | None,
        known: Collection[str],
        strangers: Strangers,
    ) -> bool:
        """Apply a scrape. Return whether a request may wait for a slot.

        Args:
            metrics: The snapshot.
            slots: The number of slots. ``None``: unknown.
            known: The adapters that are in flight, as far as ledgers and the scrape name them.
            strangers: What the scrape shows of strangers.
        """
        was_full = self._may_be_full
        unnamed = max(0, strangers.requests - len(strangers.adapters))
        self._may_be_full = _may_be_full(metrics, slots, len(known) + unnamed)
        # At the end of the step in which a slot becomes free, the request that will take the slot
        # in the next step still counts as deferred. So the page before counts as well.
        return bool(metrics.deferred) and (was_full or self._may_be_full)


def _may_be_full(metrics: PodMetrics, slots: int | None, adapters: int) -> bool:
    if slots is None or adapters < slots:
        return False
    return metrics.running is None or metrics.running >= slots
