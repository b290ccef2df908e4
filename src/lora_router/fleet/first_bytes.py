"""How long a first byte usually takes, and from when on it is late.

The history is kept by model and by whether the answer is streamed: the first byte of an answer that
is not streamed comes when the whole answer is ready. Base models of different sizes are apart.
"""

from lora_router.fleet.by_bases import ByBases
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.health import HealthRules

UNKNOWN_SECONDS = 10.0
"""The limit while nothing is known about how long a first byte usually takes."""
_WEIGHT = 1 / 16
"""The weight of a new first byte in the usual time. Recent requests count most, and one slow one
does not make the others look fast."""
_MOST_WAITING = 4
"""The shortest limit is divided by the number of waiting requests, but by no more than this."""
_ADAPTERS = 4096
"""How many adapters have their usual time stored."""


class Usual:
    """The usual time until a first byte: an exponentially weighted mean, in seconds."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: float | None = None
        """``None``: there was none yet."""

    def add(self, seconds: float) -> None:
        """Take one more first byte into account."""
        usual = self.seconds
        self.seconds = seconds if usual is None else usual + _WEIGHT * (seconds - usual)


class FirstBytes:
    """The history of all pods."""

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._of_adapter: dict[tuple[str, bool], Usual] = {}
        self._of_all = ByBases(lambda: (Usual(), Usual()))

    def add(
        self, seconds: float, bases: BaseModels, adapter: str | None, *, streamed: bool
    ) -> bool:
        """Take a first byte into account; return whether it was late.

        Args:
            seconds: How long it took.
            bases: The base models of the pod.
            adapter: The adapter; ``None``: the base model itself.
            streamed: Whether the client asked for a streamed answer.
        """
        # The limit is never shorter than this, so that most first bytes need no look at it.
        late = seconds > self._rules.first_byte_seconds and seconds > self.limit(
            bases, adapter, streamed=streamed
        )
        self._of_all.of(bases)[streamed].add(seconds)
        if adapter is not None:
            key = adapter, streamed
            usual = self._of_adapter.get(key)
            if usual is None:
                if len(self._of_adapter) >= _ADAPTERS:
                    del self._of_adapter[next(iter(self._of_adapter))]
                usual = self._of_adapter[key] = Usual()
            usual.add(seconds)
        return late

    def limit(
        self, bases: BaseModels, adapter: str | None, *, streamed: bool, waiting: int = 1
    ) -> float:
        """Return the time in seconds after which a first byte is late.

        It is a multiple of what is usual for the adapter and for all requests to pods with the
        same base models, whichever is longer.

        Args:
            bases: The base models of the pod.
            adapter: The adapter; ``None``: the base model itself.
            streamed: Whether the client asked for a streamed answer.
            waiting: How many requests wait for a first byte of the same pod. The more wait, the
                more likely is it that the pod hangs.
        """
        rules = self._rules
        shortest = rules.first_byte_seconds / min(max(waiting, 1), _MOST_WAITING)
        of_all = self._of_all.of(bases)[streamed].seconds
        if of_all is None:
            return max(shortest, UNKNOWN_SECONDS)
        usual = None if adapter is None else self._of_adapter.get((adapter, streamed))
        of_adapter = None if usual is None else usual.seconds
        longest = of_all if of_adapter is None else max(of_all, of_adapter)
        return max(shortest, rules.first_byte_factor * longest)
