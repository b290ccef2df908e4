"""Adapters for recorded sessions: drawn by popularity, once for each session."""

import random
from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from lora_router.simulator.recorded.recording import RecordedRequest
from lora_router.simulator.trace import BASE_MODEL, adapter_names


@dataclass(frozen=True, slots=True)
class SessionAdapters:
    """What adapters there are, and how popular they are."""

    adapters: int
    zipf: float = 0.0
    """Popularity of the nth adapter: ``n ** -zipf``."""
    base_share: float = 0.0
    """Share of the sessions that ask for the base model."""

    @property
    def names(self) -> tuple[str, ...]:
        """All adapters."""
        return adapter_names(self.adapters)

    def models(self, requests: Iterable[RecordedRequest], seed: int) -> Iterator[str]:
        """Yield the model of each request, the same for all requests of a session.

        Args:
            requests: The requests, in order.
            seed: The same seed gives the same models.
        """
        rng = random.Random(f"session adapters {seed}")
        names = list(self.names)
        rng.shuffle(names)
        popularity = list(accumulate((n + 1) ** -self.zipf for n in range(len(names))))
        of_session: dict[int | str, str] = {}
        for request in requests:
            model = None if request.session is None else of_session.get(request.session)
            if model is None:
                if rng.random() < self.base_share:
                    model = BASE_MODEL
                else:
                    model = names[bisect(popularity, rng.random() * popularity[-1])]
                if request.session is not None:
                    of_session[request.session] = model
            yield model
