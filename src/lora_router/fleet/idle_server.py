"""Finds the adapters that a server without requests still lists, although nothing runs there.

vLLM updates the list of adapters in use when it returns output. If the client of the last request
leaves, no output follows, and the adapter stays listed until the next request (in releases before
0.32, by their source). So the list is not believed any more once the server has shown no request
for ``IDLE_SECONDS`` and has not updated the list meanwhile.
"""

from lora_router.fleet.pod_metrics import PodMetrics

IDLE_SECONDS = 10.0
"""A lower value takes the pages of a server that updates its gauges one by one for those of an idle
one. A higher value keeps a slot taken that is free."""


class IdleServer:
    """Looks at the pages of one server. Only the beliefs write it."""

    __slots__ = ("_since", "_updated_at")

    def __init__(self) -> None:
        self._since: float | None = None
        """Since when the pages have shown no request, and the same list."""
        self._updated_at = 0.0

    def active(self, metrics: PodMetrics) -> frozenset[str]:
        """Apply a scrape; return the adapters that are in use by it."""
        lora = metrics.lora
        if lora is None:
            return frozenset()
        if metrics.running != 0 or metrics.waiting != 0:
            self._since = None
        elif self._since is None or lora.updated_at != self._updated_at:
            self._since, self._updated_at = metrics.scraped_at, lora.updated_at
        elif metrics.scraped_at - self._since >= IDLE_SECONDS:
            return frozenset()
        return lora.active
