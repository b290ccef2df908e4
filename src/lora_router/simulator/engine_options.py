"""The options of the engine model."""

from dataclasses import dataclass, fields

from lora_router.simulator.kv_cache import KvCache


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The size and the speed of an engine. Times in seconds."""

    max_loras: int = 4
    """Slots: distinct adapters in one batch."""
    max_cpu_loras: int = 64
    """Adapters in host memory, those in slots included. vLLM requires at least ``max_loras``."""
    max_num_seqs: int = 256
    """Requests in one batch."""
    step_seconds: float = 0.020
    """Duration of a step, without what each request adds."""
    step_seconds_per_request: float = 0.0005
    prefill_seconds_per_token: float = 0.0001
    """What each prompt token adds to the first step of its request."""
    host_load_seconds: float = 0.080
    """Duration of a load from host memory into a slot."""
    disk_load_seconds: float = 1.5
    """Duration of a load of an adapter that is not in host memory."""
    loads_block: bool = True
    """Whether a load stalls the batch. Otherwise it delays only the requests of its adapter."""
    kv_cache_tokens: int = 200_000
    """Tokens that fit in the KV cache, those of the prefix cache included. Without ``preemption``,
    ``Engine`` never runs out of it; ``PodModel`` does."""
    block_tokens: int = 16
    """Tokens in a block of the KV cache. Without ``prefix_caching`` and ``preemption``, the cache
    counts single tokens."""
    prefix_caching: bool = False
    """Whether requests find blocks of the KV cache that others computed (``kv_cache``)."""
    chunk_tokens: int | None = None
    """Tokens that a step computes at most, one for each request that generates included (vLLM:
    ``max_num_batched_tokens``, with chunked prefill). ``None``: prompts are computed whole."""
    preemption: bool = False
    """Whether a request takes KV blocks as its tokens are computed, and the request that joined the
    batch last is preempted when there are none. Otherwise room for the whole answer is reserved."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: An option is invalid. The message names it and what is allowed.
        """
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name.startswith(("max_", "kv_", "block_")) and value < 1:
                raise ValueError(f"{option.name} must be at least 1, not {value}")
            if "seconds" in option.name and not 0 <= value < float("inf"):
                raise ValueError(f"{option.name} must be seconds, 0 or more, not {value}")
        if self.step_seconds + self.step_seconds_per_request == 0:
            raise ValueError("step_seconds must be above 0: otherwise a step takes no time")
        if self.counts_blocks and self.kv_cache_tokens < self.block_tokens:
            raise ValueError(
                f"kv_cache_tokens must be at least block_tokens ({self.block_tokens}), "
                f"not {self.kv_cache_tokens}"
            )
        if self.chunk_tokens is not None and self.chunk_tokens < self.max_num_seqs:
            # vLLM requires it too. So every request that generates gets its token in each step.
            raise ValueError(
                f"chunk_tokens must be at least max_num_seqs ({self.max_num_seqs}), "
                f"not {self.chunk_tokens}"
            )
        if self.max_cpu_loras < self.max_loras:
            raise ValueError(
                f"max_cpu_loras must be at least max_loras ({self.max_loras}), "
                f"not {self.max_cpu_loras}"
            )

    @property
    def counts_blocks(self) -> bool:
        """Whether the KV cache is counted in blocks, not in tokens."""
        return self.prefix_caching or self.preemption

    def kv_cache(self) -> KvCache:
        """Return an empty KV cache."""
        size = self.block_tokens if self.counts_blocks else 1
        return KvCache(self.kv_cache_tokens, size, caches=self.prefix_caching)
