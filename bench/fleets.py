"""Fleets of pods in memory, of any size, with a director."""

import json
import random
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import cycle
from unittest.mock import patch

from bench.outside_algorithm import FewestRequests
from bench.plan import DEFAULT_ALGORITHM
from bench.workload import BASE, adapters
from lora_router.clock import Clock, Timer
from lora_router.discovery.pod_object import MODEL_LABEL
from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest
from lora_router.routing.candidates import Candidates
from lora_router.routing.director import Director
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.registry import load_algorithms
from lora_router.telemetry.metrics import Telemetry

ADAPTERS = 10_000
SLOTS = 16
_IN_FLIGHT_EACH = 4
"""Requests in flight on each pod, and active adapters in its last snapshot."""
_ASKED = 8192
"""Requests that are drawn in advance and repeated."""
_TICK_SECONDS = 1e-5
PROMPT_CHUNKS = 32
"""Chunks of a prompt of a chat."""


class MonotonicClock:
    """Real time, for requests that are not held."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Raise: there is room for every request, so none should be held."""
        raise RuntimeError("a request was held")


class TickingClock(MonotonicClock):
    """Time that goes on by a little whenever somebody looks: decisions are the same each time."""

    def __init__(self) -> None:
        self._now = 1000.0

    def now(self) -> float:
        """Return the time in seconds."""
        self._now += _TICK_SECONDS
        return self._now


_ANSWER = Answer(200, details=FROM_THE_POD)


class BenchFleet:
    """Pods that serve the same adapters and have free slots, with requests in flight.

    The popularity of an adapter is one over its rank: a few adapters get many requests, and most
    adapters get hardly any.
    """

    def __init__(
        self,
        pods: int,
        adapter_count: int = ADAPTERS,
        algorithm: str = DEFAULT_ALGORITHM,
        clock: Clock | None = None,
        *,
        takes_notes: bool = True,
    ) -> None:
        rng = random.Random(1)
        names = adapters(adapter_count)
        self._clock = clock or MonotonicClock()
        self.fleet = Fleet(outliers=Outliers(HealthRules(), self._clock.now))
        self.telemetry = Telemetry(self.fleet)
        options = AlgorithmOptions(metrics_max_age=1e9, rng=rng, takes_notes=takes_notes)
        self._algorithms = {
            **load_algorithms(options),
            FewestRequests.name: FewestRequests(options),
        }
        # Two fleets choose alike, also fallbacks, so that counts of instructions can be compared.
        with patch("random.Random", partial(random.Random, 1)):
            self.director = Director(
                self.fleet,
                self._algorithms,
                algorithm,
                self._clock,
                self.telemetry.counts,
                fallbacks=1,
            )
        models = (BASE, *names)
        self.fleet.replace(pod(number, models) for number in range(pods))
        now = self._clock.now()
        for state in self.fleet:
            running = frozenset(rng.sample(names, _IN_FLIGHT_EACH))
            lora = LoraActivity(SLOTS, running, running, time.time())
            self.fleet.put_metrics(state, PodMetrics(scraped_at=now, running=4.0, lora=lora))
        weights = [1.0 / rank for rank in range(1, adapter_count + 1)]
        asked = rng.choices(names, weights, k=_ASKED)
        self._asked: Iterator[str] = cycle(asked)
        self.never_asked = sorted(set(names).difference(asked))
        """Adapters that ``route`` does not request unless they are named."""
        self._under_way: deque[Routed] = deque()
        self._room = pods * _IN_FLIGHT_EACH
        for _ in range(_ASKED):
            self.route()
        candidates = {name: Candidates.of(self.fleet.serving(name).pods) for name in set(asked)}
        self._questions = cycle(
            [(InferenceRequest(name, name), candidates[name]) for name in asked]
        )
        self._chats = cycle([self._chat(number, name, rng) for number, name in enumerate(asked)])

    @property
    def prompt_readers(self) -> Collection[str]:
        """The algorithms that read prompts."""
        return [
            name for name, each in self._algorithms.items() if getattr(each, "reads_prompts", False)
        ]

    def _chat(
        self, number: int, adapter: str, rng: random.Random
    ) -> tuple[InferenceRequest, Candidates]:
        """Return a request whose prompt continues one that some pods have."""
        names = range(number * PROMPT_CHUNKS, (number + 1) * PROMPT_CHUNKS)
        ends = range(64, 64 * PROMPT_CHUNKS + 1, 64)
        candidates = Candidates.of(self.fleet.serving(adapter).pods, prefixes=self.fleet.prefixes)
        for state in rng.sample(tuple(self.fleet), 2):
            half = PROMPT_CHUNKS // 2
            self.fleet.prefixes.sent(state, adapter, Prompt(ends[half], names[:half], ends[:half]))
        prompt = Prompt(ends[-1], names, ends)
        return InferenceRequest(adapter, adapter, prompt=prompt), candidates

    def pick(self, algorithm: str, *, chats: bool = False) -> Callable[[], object]:
        """Return a call that asks an algorithm about the next request, without counting it.

        Args:
            algorithm: Its name.
            chats: Whether the requests have prompts of which some pods have the first half.
        """
        ask = self._algorithms[algorithm].pick
        questions = self._chats if chats else self._questions
        now = self._clock.now

        def call() -> object:
            request, candidates = next(questions)
            return ask(request, candidates, now())

        return call

    def route(self, strategy: str | None = None, model: str | None = None) -> None:
        """Route the next request, and end the one that is in flight longest."""
        query = RouteQuery(model or next(self._asked), strategy=strategy)
        routed = self.director.route(query, _late)
        if not isinstance(routed, Routed):
            raise RuntimeError(f"{strategy} did not route: {routed}")
        self._under_way.append(routed)
        if len(self._under_way) > self._room:
            reservation = self._under_way.popleft().reservation
            reservation.answered(_ANSWER)
            reservation.release()


def pod(number: int, models: tuple[str, ...] | None, *, ready: bool = True) -> Pod:
    """Return the description of a pod."""
    address = f"10.0.{number // 250}.{number % 250}:8000"
    return Pod(
        f"bench/pod-{number}",
        address,
        f"http://{address}/metrics",
        f"http://{address}/v1/models",
        ready=ready,
        models=models,
    )


def pod_object(number: int, *, ready: bool) -> bytes:
    """Return a pod as the Kubernetes API sends it: some KB, most of which the router ignores."""
    name = f"pod-{number}"
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.32.0",
        "args": ["serve", "/models/model", "--enable-lora", "--max-loras", "8"],
        "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
        "env": [{"name": f"VARIABLE_{n}", "value": "some value or other"} for n in range(20)],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "volumeMounts": [{"name": f"v{n}", "mountPath": f"/mnt/{n}"} for n in range(5)],
    }
    conditions = [
        {"type": kind, "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("Initialized", "PodScheduled", "ContainersReady", "Ready")
    ]
    fields = {f"f:field-{n}": {"f:inner": "."} for n in range(40)}
    metadata = {
        "name": name,
        "namespace": "bench",
        "uid": f"0b0e7a3e-0000-4000-8000-{number:012}",
        "resourceVersion": "123456789",
        "labels": {MODEL_LABEL: BASE, "app": "vllm", "pod-template-hash": "7d5c6b8f9"},
        "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}],
    }
    status = {
        "phase": "Running",
        "podIP": f"10.0.{number // 250}.{number % 250}",
        "conditions": conditions,
    }
    return json.dumps(
        {"metadata": metadata, "spec": {"containers": [container]}, "status": status}
    ).encode()


def _late(_outcome: object) -> None:
    raise RuntimeError("a request was held")
