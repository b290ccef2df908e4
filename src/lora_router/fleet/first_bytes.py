"""How long a first byte usually takes, and from when on it is late.

The history is kept by model and by whether the answer is streamed: the first byte of an answer that
is not streamed comes when the whole answer is ready.
"""

from lora_router.fleet.health import HealthRules

UNKNOWN_SECONDS = 10.0
"""The limit while nothing is known about how long a first byte usually takes."""
_WEIGHT = 1 / 16
"""The weight of a new first byte in the usual time. Recent requests count most, and one slow one
does not make the others look fast."""
_MOST_WAITING = 4
"""The shortest limit is divided by the number of waiting requests, but by no more than this."""
_MODELS = 4096
"""How many models have their usual time stored."""


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
        self._of_model: dict[tuple[str | None, bool], Usual] = {}
        self._of_all = (Usual(), Usual())

    def add(self, seconds: float, adapter: str | None, *, streamed: bool) -> bool:
        """Take a first byte into account; return whether it was late."""
        # The limit is never shorter than this, so that most first bytes need no look at it.
        late = seconds > self._rules.first_byte_seconds and seconds > self.limit(
            adapter, streamed=streamed
        )
        key = adapter, streamed
        usual = self._of_model.get(key)
        if usual is None:
            if len(self._of_model) >= _MODELS:
                del self._of_model[next(iter(self._of_model))]
            usual = self._of_model[key] = Usual()
        usual.add(seconds)
        self._of_all[streamed].add(seconds)
        return late

    def limit(self, adapter: str | None, *, streamed: bool, waiting: int = 1) -> float:
        """Return the time in seconds after which a first byte is late.

        It is a multiple of what is usual for the model and for all models, whichever is longer.

        Args:
            adapter: The adapter; ``None``: a base model.
            streamed: Whether the client asked for a streamed answer.
            waiting: How many requests wait for a first byte of the same pod. The more wait, the
                more likely is it that the pod hangs.
        """
        rules = self._rules
        shortest = rules.first_byte_seconds / min(max(waiting, 1), _MOST_WAITING)
        of_all = self._of_all[streamed].seconds
        if of_all is None:
            return max(shortest, UNKNOWN_SECONDS)
        usual = self._of_model.get((adapter, streamed))
        of_model = None if usual is None else usual.seconds
        longest = of_all if of_model is None else max(of_all, of_model)
        return max(shortest, rules.first_byte_factor * longest)
