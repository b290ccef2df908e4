"""Logs how the reads of a pod's pages go."""

import logging
from typing import Literal

from lora_router.log_limit import LogLimit
from lora_router.scrape.page_reader import ScrapeError

log = logging.getLogger("lora_router.scrape")

Kind = Literal["metrics", "models"]

_LACKS: dict[Kind, str] = {
    "metrics": "pod %s does not show its load; only what routers sent there counts: %s",
    "models": "pod %s does not list its models; the base model of its label is used: %s",
}
_SHOWS: dict[Kind, str] = {
    "metrics": "pod %s shows its load now",
    "models": "pod %s lists its models now",
}


class ReadHealth:
    """Logs when the reads of a page start to fail, and when they recover."""

    __slots__ = ("_kind", "_lacks", "_limit", "_pod", "failures", "is_long", "work")

    def __init__(self, pod: str, kind: Kind, limit: LogLimit) -> None:
        self._pod = pod
        self._kind = kind
        self._limit = limit
        self.failures = 0
        """The number of consecutive failed reads."""
        self.is_long = False
        """Whether the last page was long, or so much of the current one has arrived."""
        self.work = 0.0
        """Seconds of CPU for which the filter of a long page worked."""
        self._lacks = False

    def good(self) -> None:
        """Record a read that succeeded."""
        if self.failures:
            self.failures = 0
            message = "scrape of %s of pod %s recovered"
            self._limit.log(log, logging.INFO, "recovered", message, self._kind, self._pod)

    def lacks(self, why: str | None) -> None:
        """Record whether the pod lacks what the page should show, and why; ``None``: it does not.

        It is logged when it changes.
        """
        if why is not None and not self._lacks:
            self._limit.log(log, logging.WARNING, "lacks", _LACKS[self._kind], self._pod, why)
        elif why is None and self._lacks:
            self._limit.log(log, logging.INFO, "shows", _SHOWS[self._kind], self._pod)
        self._lacks = why is not None

    def bad(self, error: ScrapeError) -> None:
        """Record a read that failed."""
        self.failures += 1
        if self.failures == 1:
            self._limit.log(
                log,
                logging.WARNING,
                error.cause,
                "scrape of %s of pod %s failed, the last snapshot stays in use: %s",
                self._kind,
                self._pod,
                error,
            )
