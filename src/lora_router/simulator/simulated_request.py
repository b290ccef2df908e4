"""One request of a simulation."""


class SimulatedRequest:
    """One request: what it asks for, and when it was served. Times in seconds of the simulation."""

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
        "sent",
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
        """When its first token was generated. Negative until then."""
        self.ended = -1.0
        self.pod = ""
        """The name of the pod that it was sent to."""
        self.sent = arrived
        """When it was sent there. Until then it was held in the router."""
        self.deferred = False
        """Whether it waited on a pod for a slot at any time."""
