"""What a policy has sent to pods, and what of it is still there."""

from collections import Counter, deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import InferenceRequest

Item = TypeVar("Item")


class OpenRequests(Generic[Item]):
    """What a policy notes of the requests that were sent to each pod and have not ended.

    A policy sees how many requests of each adapter a pod has, but not which of them ended. The
    oldest ones are assumed to have ended first.
    """

    def __init__(self) -> None:
        self._sent: dict[PodView, dict[str | None, deque[Item]]] = {}

    def add(self, pod: PodView, adapter: str | None, item: Item) -> None:
        """Note a request that is sent to a pod."""
        self._sent.setdefault(pod, {}).setdefault(adapter, deque()).append(item)

    def pop_ended(self, pod: PodView) -> Iterator[Item]:
        """Yield and forget what was noted of the requests of a pod that have ended."""
        by_adapter = self._sent.get(pod, {})
        for adapter in tuple(by_adapter):
            items = by_adapter[adapter]
            while len(items) > _in_flight(pod, adapter):
                yield items.popleft()
            if not items:
                del by_adapter[adapter]

    def has_none(self, pod: PodView) -> bool:
        """Return whether nothing is noted of a pod."""
        return not self._sent.get(pod)


class SentRequests:
    """Adds up a size of the requests that were sent to each pod and have not ended."""

    def __init__(self) -> None:
        self._open = OpenRequests[float]()
        self._sums: dict[PodView, float] = {}

    def add(self, pod: PodView, adapter: str | None, size: float) -> None:
        """Record that a request is sent to a pod, with a size that is added up."""
        self._open.add(pod, adapter, size)
        self._sums[pod] = self._sums.get(pod, 0.0) + size

    def size_on(self, pod: PodView) -> float:
        """Return the sum of the sizes of the requests on a pod."""
        ended = sum(self._open.pop_ended(pod))
        if self._open.has_none(pod):
            self._sums[pod] = 0.0
        elif ended:
            self._sums[pod] -= ended
        return self._sums[pod]


class ActivePrompts:
    """Adds up the prompts on each pod. What several prompts of a model begin with counts once."""

    def __init__(self) -> None:
        self._open = OpenRequests[_Noted]()
        self._on: dict[PodView, _OnPod] = {}

    def add(self, pod: PodView, request: InferenceRequest, tokens: float) -> None:
        """Record that a request, whose prompt has so many tokens, is sent to a pod."""
        pieces = tuple(_pieces(request))
        noted = _Noted(pieces, tokens - sum(piece.tokens for piece in pieces))
        self._open.add(pod, request.adapter, noted)
        self._on.setdefault(pod, _OnPod()).add(noted)

    def tokens_with(self, pod: PodView, request: InferenceRequest, tokens: float) -> float:
        """Return the tokens on a pod if a request, whose prompt has so many tokens, joins them."""
        on = self._on.get(pod)
        if on is None:
            return tokens
        for noted in self._open.pop_ended(pod):
            on.remove(noted)
        if self._open.has_none(pod):
            del self._on[pod]
            return tokens
        return on.tokens + tokens - on.shared_with(request)


class _Piece(NamedTuple):
    """A chunk of a prompt."""

    key: tuple[str, int]
    """Its model, and the name of the beginning that it ends."""
    tokens: float


class _Noted(NamedTuple):
    """The prompt of a request."""

    pieces: tuple[_Piece, ...]
    rest: float
    """Tokens behind its pieces."""


class _OnPod:
    """The prompts on one pod."""

    __slots__ = ("_users", "tokens")

    def __init__(self) -> None:
        self._users: Counter[tuple[str, int]] = Counter()
        self.tokens = 0.0

    def add(self, noted: _Noted) -> None:
        users = self._users
        for piece in noted.pieces:
            if not users[piece.key]:
                self.tokens += piece.tokens
            users[piece.key] += 1
        self.tokens += noted.rest

    def remove(self, noted: _Noted) -> None:
        users = self._users
        for piece in noted.pieces:
            users[piece.key] -= 1
            if not users[piece.key]:
                del users[piece.key]
                self.tokens -= piece.tokens
        self.tokens -= noted.rest

    def shared_with(self, request: InferenceRequest) -> float:
        """Return how many tokens of a prompt's beginning are here."""
        prompt = request.prompt
        if prompt is None:
            return 0.0
        shared = 0.0
        for chunk, end in zip(prompt.chunks, prompt.ends, strict=True):
            if (request.model, chunk) not in self._users:
                break
            shared = end
        return shared


def _pieces(request: InferenceRequest) -> Iterator[_Piece]:
    prompt = request.prompt
    if prompt is None:
        return
    start = 0.0
    for chunk, end in zip(prompt.chunks, prompt.ends, strict=True):
        yield _Piece((request.model, chunk), end - start)
        start = end


def _in_flight(pod: PodView, adapter: str | None) -> int:
    adapters = pod.in_flight_adapters
    if adapter is None:
        return pod.in_flight - sum(adapters.values())
    return adapters.get(adapter, 0)
