"""What one scrape of a pod said. Records only; reading a page is the business of ``scrape``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoraActivity:
    """The newest believable series of ``vllm:lora_requests_info``.

    It says which adapters have had a first token and not finished: activity, not residency. vLLM
    0.32.0 writes the same names into both labels; servers that tell running from waiting exist.
    """

    max_lora: int | None
    """Slots for distinct adapters in one batch. ``None``: missing, 0 or unreadable, so unknown."""
    running: frozenset[str]
    waiting: frozenset[str]
    updated_at: float
    """Unix time in seconds, by the pod's clock. Stands still while the pod is idle."""

    @property
    def active(self) -> frozenset[str]:
        """Adapters in either label, each once."""
        return self.running | self.waiting


@dataclass(frozen=True, slots=True)
class LoraResidency:
    """Which adapters a server says it has loaded, in use or not.

    vLLM will say so (vllm-project/vllm#54830); 0.32.0 does not. An adapter unloaded through the
    API stays listed until another takes its place.
    """

    gpu: frozenset[str]
    """In a slot: the next request runs at once."""
    cpu: frozenset[str]
    """In host memory only: the next request waits for a copy. Never also in ``gpu``."""
    max_gpu: int | None
    """Slots. ``None``: missing, 0 or unreadable, so unknown."""


@dataclass(frozen=True, slots=True)
class PodMetrics:
    """An immutable snapshot of a pod's load. ``None`` means the page did not say."""

    scraped_at: float
    """When the page arrived, in seconds of the router's monotonic clock."""
    running: float | None = None
    """Requests in the batch, summed over engines."""
    waiting: float | None = None
    """Requests queued in the server, summed over engines."""
    kv_cache_usage: float | None = None
    """Share of the KV cache in use, in [0, 1]; the fullest engine's."""
    deferred: float | None = None
    """Of the waiting requests, those held back by the adapter slot limit."""
    lora: LoraActivity | None = None
    """``None``: nothing known about adapters, which is not the same as no room."""
    residency: LoraResidency | None = None
    """``None``: the server does not say what it has loaded."""
    adapter_load_seconds: float | None = None
    """What loading an adapter took, the mean over the server's life."""
    started_at: float | None = None
    """Unix time, by the pod's clock, at which the server's process began."""
    generated_tokens: float | None = None
    """Tokens that came out since then, of all engines. Read where ``started_at`` is missing."""
