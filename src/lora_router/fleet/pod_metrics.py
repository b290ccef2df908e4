"""The result of one scrape of a pod. Records only; ``scrape`` reads the pages."""

from dataclasses import dataclass

MAX_REQUESTS = 1_000_000
"""A larger number of requests on one pod cannot be true, and counts as unknown. vLLM runs some
hundreds of them, and each one that waits has a connection."""
MAX_KV_CACHE_USAGE = 1.0
"""A higher fraction of the KV cache cannot be in use, and counts as unknown."""


@dataclass(frozen=True, slots=True)
class LoraActivity:
    """What the series of ``vllm:lora_requests_info`` say of the present.

    They list the adapters that have had a first token and have not finished: activity, not
    residency. vLLM 0.32.0 writes the same names into both labels. Other servers distinguish running
    from waiting adapters. No adapter is listed if the page does not show which series is newest.
    """

    max_lora: int | None
    """The number of distinct adapters that one batch can contain. ``None``: missing, 0 or
    unreadable, so unknown."""
    running: frozenset[str]
    waiting: frozenset[str]
    updated_at: float
    """Unix time in seconds on the pod's clock. It does not advance while the pod is idle. 0: the
    page shows no time."""

    @property
    def active(self) -> frozenset[str]:
        """Adapters in either label, without duplicates."""
        return self.running | self.waiting


@dataclass(frozen=True, slots=True)
class LoraResidency:
    """Which adapters a server reports as loaded, in use or not.

    A future vLLM will report this (vllm-project/vllm#54830); 0.32.0 does not. An adapter that was
    unloaded through the API stays listed until another adapter takes its place.
    """

    gpu: frozenset[str]
    """Adapters in a slot. The next request for one of them runs immediately."""
    cpu: frozenset[str]
    """Adapters in host memory only. The next request for one of them waits for a copy. Disjoint
    from ``gpu``."""
    max_gpu: int | None
    """The number of slots. ``None``: missing, 0 or unreadable, so unknown."""


@dataclass(frozen=True, slots=True)
class PodMetrics:
    """An immutable snapshot of a pod's load.

    ``None`` means that the page did not contain the value.
    """

    scraped_at: float
    """When the page arrived, in seconds on the router's monotonic clock."""
    running: float | None = None
    """Requests in the batch, summed over engines."""
    waiting: float | None = None
    """Requests queued in the server, summed over engines."""
    kv_cache_usage: float | None = None
    """Fraction of the KV cache in use, in [0, 1], of the fullest engine."""
    cache_tokens: float | None = None
    """Tokens that the KV cache has room for, of all engines together. 0: the server keeps none of
    them for later requests (prefix caching is off)."""
    deferred: float | None = None
    """The number of waiting requests that something else than a lack of capacity holds back: the
    adapter slot limit, but also a transfer of KV blocks, or the compilation of a grammar. The page
    does not say what (``slot_waits``)."""
    lora: LoraActivity | None = None
    """``None``: nothing is known about adapters. This does not mean that there is no room."""
    residency: LoraResidency | None = None
    """``None``: the server does not report what it has loaded."""
    adapter_load_seconds: float | None = None
    """Mean time in seconds that loading an adapter took, over the server's life."""
    started_at: float | None = None
    """Unix time on the pod's clock at which the server process started."""
    generated_tokens: float | None = None
    """Tokens generated since then, by all engines."""

    @property
    def slots(self) -> int | None:
        """The number of adapter slots. ``None``: the page does not show it."""
        slots = None if self.lora is None else self.lora.max_lora
        return self.residency.max_gpu if slots is None and self.residency is not None else slots

    @property
    def shows_load(self) -> bool:
        """Whether the page shows how many requests the server has."""
        return self.running is not None or self.waiting is not None
