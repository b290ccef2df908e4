"""``prefix-cache-preble``: AIBrix's version of Preble, prefixes first and costs otherwise."""

import random
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import requests_in_flight
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.prompt_tokens import tokens_of

MATCH_THRESHOLD = 0.5
WINDOW_SECONDS = 180.0
FORGET_SECONDS = 300.0
IMBALANCE = 16
ANSWER_TOKENS = 45
SECONDS_A_TOKEN = 0.15


@dataclass(slots=True, eq=False)
class _Node:
    """The end of a beginning of prompts."""

    tokens: float
    """Tokens beyond the beginning that was known when this one came."""
    used_at: float = 0.0
    pods: dict[str, dict[PodView, None]] = field(default_factory=dict)
    """The pods that have it, by model."""


@dataclass(slots=True)
class _Counted:
    """The requests of the window that end at a node."""

    requests: int = 0
    missed: float = 0.0
    """Tokens that were not known before."""
    total: float = 0.0


class PrefixCachePreble:
    """Picks by the longest match if it is long, and else the pod with the lowest cost.

    Source: AIBrix, ``pkg/plugins/gateway/algorithms/prefix_cache_preble.go`` and
    ``pkg/utils/prefixcacheindexer/tree.go``, commit e3e10f9 (2026-08-22), after Srivatsa et al.,
    "Preble: Efficient Distributed Prompt Scheduling for LLM Serving", ICLR 2025.

    1. If the pods with the most and the fewest requests differ by more than 16, only the pods with
       the fewest are considered.
    2. If more than half of the prompt was seen before, of any model, the pods are considered that
       have the longest beginning of the prompt for this model. The one whose beginnings had the
       fewest requests in the last 3 minutes is picked.
    3. Otherwise, or if no pod has any beginning, the pod with the lowest cost is picked: the sum,
       over the prompts of the last 3 minutes that the pod has, of the time to compute what was new
       of them, and of a usual answer (45 tokens of 0.15 s, once for each prompt).

    The time to compute a prompt is a profile there (of a V100 or A6000 with a 7B model), and here
    the scenario's prefill speed. The prompt's chunks stand for the nodes of the radix tree. A
    prompt without chunks, because it is short or the scenario names none, is a node of its own.
    What was not used for 5 minutes is forgotten.
    """

    name = "prefix-cache-preble"
    reads_prompts = True

    def __init__(self, options: AlgorithmOptions, engine: EngineOptions) -> None:
        self._random: random.Random = options.rng
        self._seconds_a_token = engine.prefill_seconds_per_token
        self._nodes: dict[int, _Node] = {}
        """By the name of the beginning, the least recently used first."""
        self._window: deque[tuple[float, _Node, float, float]] = deque()
        self._counted: dict[_Node, _Counted] = {}

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        """Return a pick by the steps above."""
        self._forget(now)
        pods = _least_loaded_if_imbalanced(candidates)
        prompt = request.prompt
        chunks: Sequence[int] = () if prompt is None else prompt.chunks
        known = 0
        while known < len(chunks) and chunks[known] in self._nodes:
            known += 1
        matched = prompt.ends[known - 1] if prompt is not None and known else 0.0
        tokens = tokens_of(request)
        found: PodView | None = None
        if matched > MATCH_THRESHOLD * tokens:
            found = self._with_longest(request.model, chunks[:known], pods)
        pod = found or self._cheapest(pods)
        self._add(request, pod, known, now)
        return Pick(pod, "prefix-match" if found else "least-cost")

    def _with_longest(
        self, model: str, chunks: Sequence[int], pods: Collection[PodView]
    ) -> PodView | None:
        for chunk in reversed(chunks):
            having = [pod for pod in self._nodes[chunk].pods.get(model, ()) if pod in pods]
            if having:
                return min(having, key=self._requests_of)
        return None

    def _requests_of(self, pod: PodView) -> int:
        """Return the requests of the window that end at beginnings that a pod has."""
        return sum(counted.requests for node, counted in self._counted.items() if _has(node, pod))

    def _cheapest(self, pods: Sequence[PodView]) -> PodView:
        costs = [
            sum(self._cost(node, each) for node, each in self._counted.items() if _has(node, pod))
            for pod in pods
        ]
        least = min(costs)
        return self._random.choice(
            [pod for pod, cost in zip(pods, costs, strict=True) if cost == least]
        )

    def _cost(self, node: _Node, counted: _Counted) -> float:
        miss_rate = counted.missed / (counted.total or 1.0)
        prefill = miss_rate * counted.requests * node.tokens * self._seconds_a_token
        return prefill / len(node.pods) + ANSWER_TOKENS * SECONDS_A_TOKEN

    def _add(self, request: InferenceRequest, pod: PodView, known: int, now: float) -> None:
        prompt = request.prompt
        if prompt is None or not prompt.chunks:
            # It has no name, so it is a node that no other prompt shares.
            tokens = tokens_of(request)
            alone = _Node(tokens, now, {request.model: {pod: None}})
            self._count(alone, tokens, now)
            return
        nodes, start = self._nodes, prompt.ends[known - 1] if known else 0.0
        # The longest beginning is forgotten first.
        for chunk, end in zip(reversed(prompt.chunks), reversed(prompt.ends), strict=True):
            node = nodes.pop(chunk, None) or _Node(end - start)
            node.used_at = now
            node.pods.setdefault(request.model, {})[pod] = None
            nodes[chunk] = node
        self._count(nodes[prompt.chunks[-1]], prompt.ends[-1], now)

    def _count(self, node: _Node, tokens: float, now: float) -> None:
        """Count a request whose prompt of some tokens ends at a node."""
        counted = self._counted.setdefault(node, _Counted())
        counted.requests += 1
        counted.missed += node.tokens
        counted.total += tokens
        self._window.append((now, node, node.tokens, tokens))

    def _forget(self, now: float) -> None:
        window, counted = self._window, self._counted
        while window and window[0][0] < now - WINDOW_SECONDS:
            _, node, missed, total = window.popleft()
            of_node = counted[node]
            of_node.requests -= 1
            of_node.missed -= missed
            of_node.total -= total
            if not of_node.requests:
                del counted[node]
        nodes = self._nodes
        while nodes:
            chunk = next(iter(nodes))
            if nodes[chunk].used_at >= now - FORGET_SECONDS:
                break
            del nodes[chunk]


def _has(node: _Node, pod: PodView) -> bool:
    return any(pod in pods for pods in node.pods.values())


def _least_loaded_if_imbalanced(candidates: Candidates) -> Sequence[PodView]:
    counts = [requests_in_flight(pod) for pod in candidates]
    fewest = min(counts)
    if max(counts) - fewest <= IMBALANCE:
        return candidates
    return [pod for pod, count in zip(candidates, counts, strict=True) if count == fewest]
