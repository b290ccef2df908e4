"""The health of one pod, as its answers, its silence and its scrapes show it.

The states:

- *healthy*: gets requests.
- *suspect*: there is evidence against it, but not enough. It gets no new requests while another pod
  is well, and it is healthy again with the next good answer.
- *ejected*: it failed. It gets no new requests while another pod is well, until a probe or a good
  scrape shows that it answers.
- *trying*: it answered. It gets one request at a time, then two, then four, and is healthy after
  ``GOOD_AFTER`` good answers. While no client asks it, it gets probes. One failure ejects it again.

Client errors (4xx), requests that their clients cancel, and long generations are no evidence. The
models are Envoy's outlier detection (consecutive failures, failure share, maximum share of ejected
hosts) and Linkerd's failure accrual (exponential backoff, one probe).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from lora_router.fleet.pod_metrics import PodMetrics

GOOD_AFTER = 5
"""Good answers in a row after which a pod that is being tried is healthy."""
WINDOW_SECONDS = 10.0
"""The time over which the share of failed requests is measured."""
WINDOW_REQUESTS = 10
"""The share counts only with this many requests in the window."""
SLOW_AFTER = 10
"""Slow first bytes in a row after which a pod is suspect."""


class Health(IntEnum):
    """The state of a pod. Integers, because ``hash`` of other enumerations is slow."""

    HEALTHY = 0
    SUSPECT = 1
    EJECTED = 2
    TRYING = 3


# Module-level names, because each access to a member of an enumeration searches its class.
HEALTHY, SUSPECT, EJECTED, TRYING = Health

NAMES: Mapping[Health, str] = {
    HEALTHY: "healthy",
    SUSPECT: "suspect",
    EJECTED: "ejected",
    TRYING: "trying",
}
"""The states as users read them."""


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a pod is suspect and ejected. ``config.health_settings`` has the meanings."""

    consecutive_failures: int = 3
    failure_share: float = 0.5
    max_ejected_share: float = 0.5
    min_ejection_seconds: float = 1.0
    max_ejection_seconds: float = 60.0
    first_byte_seconds: float = 1.0
    first_byte_factor: float = 8.0


class Sent(Protocol):
    """What is known of a request that was sent to a pod."""

    adapter: str | None
    path: str | None
    """``None``: it names no model. The time of its first byte says nothing, because its body may
    still arrive, and its failure may be that of its path."""
    streamed: bool


class PodHealth:
    """What is known about the health of one pod. Only ``outliers`` writes to it."""

    __slots__ = (
        "allowance",
        "cause",
        "ejections",
        "failed_path",
        "failures",
        "healthy_since",
        "probing",
        "reported_at",
        "retry_at",
        "scrape_sign",
        "sign_at",
        "slow",
        "state",
        "successes",
        "unanswered",
        "untimed",
        "window_failed",
        "window_since",
        "window_total",
    )

    def __init__(self) -> None:
        self.state: Health = HEALTHY
        self.cause = ""
        """Why the pod is not healthy, as users read it."""
        self.unanswered: dict[Sent, float] = {}
        """The requests without a first byte, oldest first, each with the time it was sent."""
        self.untimed = 0
        """The requests without a first byte whose time says nothing."""
        self.sign_at = 0.0
        """When the pod last showed that it is alive."""
        self.failed_path = ""
        """The path of the request that failed last. The probe asks for the same."""
        self.failures = 0
        """Failed requests since the last good answer."""
        self.slow = 0
        """Slow first bytes since the last that was not."""
        self.successes = 0
        """Good answers since the pod is being tried."""
        self.allowance = 1
        """How many requests without a first byte a pod may have while it is being tried."""
        self.ejections = 0
        """Ejections and failed probes in a row, from which the backoff follows."""
        self.healthy_since = 0.0
        self.retry_at = 0.0
        """When to probe it, if it is not healthy."""
        self.probing = False
        self.reported_at = float("-inf")
        """When it was last probed because a peer had ejected it."""
        self.scrape_sign: object = None
        self.window_since = 0.0
        self.window_total = 0
        self.window_failed = 0

    @property
    def full(self) -> bool:
        """Whether a pod that is being tried has as many requests as it may."""
        return len(self.unanswered) + self.untimed >= self.allowance

    def count(self, now: float, *, failed: bool) -> None:
        """Count an answer in the window."""
        if now - self.window_since > WINDOW_SECONDS:
            self.window_since = now
            self.window_total = self.window_failed = 0
        self.window_total += 1
        self.window_failed += failed

    def fails_too_often(self, share: float) -> bool:
        """Return whether more than a share of the requests in the window failed."""
        total = self.window_total
        return share < 1 and total >= WINDOW_REQUESTS and self.window_failed > share * total

    def shows_life(self, metrics: PodMetrics) -> bool:
        """Return whether a scrape shows that the engine works.

        The engine updates these numbers while requests run. Others are no sign: the number of
        waiting requests grows while an engine hangs, and a server may write the time of its
        adapters' series with each page.
        """
        sign = metrics.running, metrics.kv_cache_usage, metrics.generated_tokens
        before, self.scrape_sign = self.scrape_sign, sign
        return before is not None and before != sign
