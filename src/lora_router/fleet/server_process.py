"""Tells from metrics pages whether a server process is another one than before.

A restarted server has nothing loaded. If discovery reports another uid or address, it is another
pod. Otherwise the metrics page reveals the restart: by another start time, by a counter that
decreased, or, if it has neither, by the absence of series that were there before.
"""

from lora_router.fleet.pod_metrics import PodMetrics


class ServerProcess:
    """The process behind the pages of one pod."""

    __slots__ = ("_generated_tokens", "_named_adapters", "_started_at", "emptied_at")

    def __init__(self) -> None:
        self._started_at: float | None = None
        self._generated_tokens: float | None = None
        self._named_adapters = False
        """Whether the process has ever reported which adapters are active."""
        self.emptied_at = float("-inf")
        """When the last page of another process arrived, as ``PodMetrics.scraped_at``."""

    def is_another(self, metrics: PodMetrics) -> bool:
        """Return whether the process of a page started after the page before, and remember it."""
        found = self._is_another(metrics)
        if found:
            self.emptied_at = metrics.scraped_at
        self._started_at = metrics.started_at
        self._generated_tokens = metrics.generated_tokens
        named_before = self._named_adapters and not found
        self._named_adapters = named_before or metrics.lora is not None
        return found

    def _is_another(self, metrics: PodMetrics) -> bool:
        if self._started_at is not None and metrics.started_at is not None:
            return metrics.started_at != self._started_at
        if self._generated_tokens is not None and metrics.generated_tokens is not None:
            return metrics.generated_tokens < self._generated_tokens
        return self._named_adapters and metrics.lora is None
