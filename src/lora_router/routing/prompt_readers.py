"""Which algorithms ask for prompts, and when the prompt of a request is read.

A prompt is read while its request is decided, because only then is it known which algorithm asks.
What reads it has the whole body of the request. Nobody counts the bodies of requests that wait, so
the prompt of such a request is read before it waits, and takes some kilobytes.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import Algorithm
from lora_router.routing.outcome import RouteQuery


class PromptReaders:
    """The algorithms of one router that ask for prompts."""

    def __init__(self, algorithms: Mapping[str, Algorithm], default: str) -> None:
        """Create it.

        Args:
            algorithms: All algorithms, by name.
            default: The one that picks where a request names none.
        """
        self._default = default
        self._names = frozenset(
            name for name, each in algorithms.items() if getattr(each, "reads_prompts", False)
        )

    def read(self, algorithm: Algorithm, query: RouteQuery) -> Prompt | None:
        """Return the prompt, if the algorithm asks for it."""
        if query.read_prompt is None or algorithm.name not in self._names:
            return None
        return query.read_prompt()

    def without_body(self, query: RouteQuery) -> RouteQuery:
        """Return a query that may be kept while its request waits."""
        read_prompt = query.read_prompt
        if read_prompt is None:
            return query
        if (query.strategy or self._default) not in self._names:
            return replace(query, read_prompt=None)
        prompt = read_prompt()
        return replace(query, read_prompt=lambda: prompt)
