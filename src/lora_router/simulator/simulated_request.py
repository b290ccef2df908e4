"""One request of a simulation."""


class SimulatedRequest:
    """One request: what it asks, and what became of it. Times in seconds of the simulation."""

    __slots__ = (
        "adapter",
        "arrived",
        "deferred",
        "ended",
        "first_token",
        "kv_tokens",
        "model",
        "output_tokens",
        "pod",
        "prompt_tokens",
    )

    def __init__(
        self,
        model: str,
        adapter: str | None,
        prompt_tokens: int,
        output_tokens: int,
        arrived: float,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.arrived = arrived
        self.kv_tokens = prompt_tokens + output_tokens
        self.first_token = -1.0
        """When its first token came out; negative until then."""
        self.ended = -1.0
        self.pod = ""
        """Where it was sent."""
        self.deferred = False
        """Whether it ever waited on a pod for a slot."""
