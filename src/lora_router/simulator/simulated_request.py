"""One request of a simulation."""

from collections.abc import Sequence

from lora_router.fleet.prompt import Prompt


class SimulatedRequest:
    """One request: what it asks for, and when it was served. Times in seconds of the simulation."""

    __slots__ = (
        "adapter",
        "arrived",
        "block_tokens",
        "blocks",
        "cached_tokens",
        "deferred",
        "ended",
        "first_token",
        "model",
        "output_tokens",
        "pod",
        "prompt_tokens",
        "sent",
        "was_held",
    )

    def __init__(
        self,
        model: str,
        adapter: str | None,
        prompt_tokens: int,
        output_tokens: int,
        arrived: float,
        blocks: Sequence[int] = (),
        block_tokens: int = 64,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.arrived = arrived
        self.blocks = blocks
        """Names of the prompt's blocks, in order. Prompts with the same first n names begin with
        the same n blocks. The last block may be shorter than the others. Further names are those of
        the answer's blocks, as they are in a later prompt that contains the answer."""
        self.block_tokens = block_tokens
        """Length of a block."""
        self.cached_tokens = 0
        """Tokens of its prompt that were in the pod's prefix cache when it joined the batch."""
        self.first_token = -1.0
        """When its first token was generated. Negative until then."""
        self.ended = -1.0
        self.pod = ""
        """The name of the pod that it was sent to."""
        self.sent = arrived
        """When it was sent there. Until then it was held in the router."""
        self.deferred = False
        """Whether it waited on a pod for a slot at any time."""
        self.was_held = False
        """Whether it was held in a router at any time."""

    def begin_anew(self) -> None:
        """Forget what became of it, but for when it arrived: it was lost with its pod."""
        self.cached_tokens = 0
        self.first_token = -1.0
        self.pod = ""
        self.sent = self.arrived

    def prompt(self) -> Prompt:
        """Return what a router knows of its prompt."""
        size, tokens = self.block_tokens, self.prompt_tokens
        whole = tokens // size
        return Prompt(tokens, self.blocks[:whole], range(size, whole * size + 1, size))
