"""The weights of the terms, from ``algorithm_options``."""

from collections.abc import Mapping

from msgspec import Struct

REQUESTS_A_SECOND = 200.0
"""What a second of waiting costs, in requests of load. A lower value makes adapters and chats move
between pods. A higher value makes pods with popular adapters busier."""


class Option(Struct, frozen=True):
    """A number in ``algorithm_options``."""

    name: str
    usual: float
    most: float

    def read(self, extra: Mapping[str, str]) -> float:
        """Return the value.

        Raises:
            ValueError: It is no number, or out of its bounds.
        """
        written = extra.get(self.name, self.usual)
        try:
            value = float(written)
        except ValueError:
            value = -1.0
        if not 0.0 <= value <= self.most:
            raise ValueError(
                f"{self.name}={written}: must be a number{_UNITS.get(self.name, '')}, "
                f"from 0 to {self.most:g}"
            )
        return value


_UNITS = {"adapter_load_seconds": " of seconds"}
ADAPTER_LOAD_SECONDS = Option("adapter_load_seconds", 0.08, 60.0)
ADAPTER_WEIGHT = Option("adapter_weight", 1.0, 100.0)
PROMPT_WEIGHT = Option("prompt_weight", 0.3, 100.0)
PREFIX_WEIGHT = Option("prefix_weight", 1.5, 100.0)
KV_WEIGHT = Option("kv_weight", 1.0, 100.0)
SPEED_WEIGHT = Option("speed_weight", 1.0, 100.0)
OPTIONS = (
    ADAPTER_LOAD_SECONDS,
    ADAPTER_WEIGHT,
    PROMPT_WEIGHT,
    PREFIX_WEIGHT,
    KV_WEIGHT,
    SPEED_WEIGHT,
)
OPTION_NAMES = tuple(option.name for option in OPTIONS)


class Weights(Struct, frozen=True):
    """What the settings say about the terms. A weight of 0 leaves a term out."""

    adapter_load_seconds: float = ADAPTER_LOAD_SECONDS.usual
    """Seconds of loading an adapter from host memory into a slot, for pods that do not report it
    and of which nothing better is known."""
    adapter_weight: float = ADAPTER_WEIGHT.usual
    """What a second of loading an adapter costs, as a share of a second of waiting."""
    prompt_weight: float = PROMPT_WEIGHT.usual
    """What a second of prompts on their way costs, as a share of a second of waiting. They delay
    the request only as far as they are processed before it."""
    prefix_weight: float = PREFIX_WEIGHT.usual
    """What a second of processing the missing part of the prompt costs, likewise."""
    kv_weight: float = KV_WEIGHT.usual
    """Factor on the cost of a full KV cache."""
    speed_weight: float = SPEED_WEIGHT.usual
    """How much of a pod's slowness counts: with 1, a request on a pod that is three times slower
    counts as three."""

    @classmethod
    def read(cls, extra: Mapping[str, str]) -> "Weights":
        """Return the weights that some options state.

        Raises:
            ValueError: An option is no number, or out of its bounds. The message names it.
        """
        return cls(*(option.read(extra) for option in OPTIONS))
