"""Decisions with all terms of cost, in a fleet of 1,000 pods with 10,000 adapters.

Everything that has a price occurs: pods have requests of this router and of a peer, which exchanges
shares, KV caches are nearly full on some pods, some pods are slow, prompts are on their way, and
pods have beginnings of prompts. The popularity of an adapter is one over its rank.

A *decision* is what the director asks for: the answer of the algorithm, checked, about pods that
have room. To read the prompt and to count the request is not a part of it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

from bench.fleets import TickingClock, pod
from bench.plan import DEFAULT_ALGORITHM
from bench.workload import BASE, PATH, adapter, adapters, body
from lora_router.extproc.body import read_body
from lora_router.extproc.prompt_reading import read_prompt
from lora_router.extproc.token_lengths import TokenLengths
from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import LedgerShare, PodShare
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.director import Director
from lora_router.routing.outcome import RouteQuery
from lora_router.routing.overload import Overload
from lora_router.routing.refusal import Refused
from lora_router.routing.registry import load_algorithms

PODS = 1_000
ADAPTERS = 10_000
PROMPT_SIZES = (1_000, 20_000)
"""Bytes of the bodies of requests."""
_OWN, _PEERS = 3, 2
"""Requests of this router and of the peer on each pod."""
_SLOTS = 8
_SHARE_SECONDS = 0.05
_CACHE_TOKENS = 300_000.0
_SLOW_SHARE = 0.1
_LOOKED_AT = 3_000
"""Requests of which each kind of decision is taken."""
_BASE_SHARE = 0.1
_PATIENT_SECONDS, _IMPATIENT_SECONDS = 1.0, 10.0
ROOM = 8
"""Requests that a pod may have, where that is limited."""


class TickingEvents(TickingClock):
    """Such a clock, with timers that never fire."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> "_NoTimer":
        """Forget the call."""
        return _NoTimer()


class _NoTimer:
    def cancel(self) -> None: ...


class _NoTelemetry:
    def decided(self, _algorithm: str, _outcome: str, _reason: str, _seconds: float) -> None: ...


class LargeFleet:
    """A large fleet, and requests about which it is asked.

    Args:
        size: Bytes of the bodies of requests.
        is_full: Whether no pod has a free slot, and requests are held.
        overload: The limits of pods.
        pods: Pods of the fleet.
        adapter_count: Adapters that each of them serves.
    """

    def __init__(
        self,
        size: int,
        *,
        is_full: bool = False,
        overload: Overload | None = None,
        pods: int = PODS,
        adapter_count: int = ADAPTERS,
    ) -> None:
        self._rng = rng = random.Random(1)
        self._size = size
        self._clock = clock = TickingEvents()
        self.fleet = fleet = Fleet()
        algorithms = load_algorithms(AlgorithmOptions(metrics_max_age=1e9, rng=rng))
        self._algorithm = algorithms[DEFAULT_ALGORITHM]
        self.director = Director(
            fleet, algorithms, DEFAULT_ALGORITHM, clock, _NoTelemetry(), overload=overload
        )
        *names, unasked = adapters(adapter_count + 1)
        fleet.replace(pod(number, None) for number in range(pods))
        served = Catalog.of(
            (ServedModel(BASE), *(ServedModel(name, BASE) for name in (*names, unasked)))
        )
        for state in fleet:
            fleet.put_models(state, served)
        self._adapters = cycle(_by_popularity(names, rng))
        self._prompt = _read(size)
        for state in fleet:
            self._scrape(state, names)
        self._exchange()
        self._send()
        self._exchange()
        if is_full:
            for state in fleet:
                self._fill(state)
            held = self.director.route(RouteQuery(unasked), _ignore)
            if not self.director.held:
                raise RuntimeError(f"the fleet is not full: {held}")

    def decisions(self, held_for: float | None = None) -> "dict[str, Sequence[_Question]]":
        """Return questions by the reason of their answer.

        Args:
            held_for: For how many seconds such requests wait already, if some do.
        """
        found: dict[str, list[_Question]] = {}
        for number, name in enumerate(islice(self._adapters, _LOOKED_AT)):
            is_base = number % int(1 / _BASE_SHARE) == 0
            question = self._question(None if is_base else name, held_for)
            found.setdefault(self.ask(question).reason, []).append(question)
        return dict(found)

    def asking(self, questions: "Sequence[_Question]") -> Callable[[], object]:
        """Return a call that asks the next one of some questions."""
        left = cycle(questions)
        return lambda: self.ask(next(left))

    def ask(self, question: "_Question") -> Pick | Hold:
        """Decide about a request, without counting it."""
        request, candidates = question
        now = self._clock.now()
        return self.director.reception.answer(self._algorithm, request, candidates, now)

    def _question(self, name: str | None, held_for: float | None) -> "_Question":
        model = BASE if name is None else name
        candidates = self.director.reception.finder.among(
            self.fleet.serving(model).pods, None, None
        )
        assert not isinstance(candidates, Refused)
        since = None if held_for is None else self._clock.now() - held_for
        prompt = self._continued()
        request = InferenceRequest(model, name, size=self._size, held_since=since, prompt=prompt)
        return request, candidates

    def _continued(self) -> Prompt:
        """Return a prompt that begins like others of its model, and ends like no other."""
        prompt, rng = self._prompt, self._rng
        common = len(prompt.chunks) // 2
        own = [rng.getrandbits(63) for _ in prompt.chunks[common:]]
        return Prompt(prompt.tokens, (*prompt.chunks[:common], *own), prompt.ends, prompt.size)

    def _scrape(self, state: PodState, names: Sequence[str]) -> None:
        rng = self._rng
        running = frozenset(rng.sample(names, 1))
        lora = LoraActivity(_SLOTS, running, running, 1e9)
        metrics = PodMetrics(
            scraped_at=self._clock.now(),
            running=float(_OWN + _PEERS),
            waiting=0.0,
            kv_cache_usage=rng.uniform(0.4, 0.95),
            cache_tokens=_CACHE_TOKENS,
            lora=lora,
        )
        self.fleet.put_metrics(state, metrics)
        if rng.random() < _SLOW_SHARE:
            state.work.slowness = rng.uniform(1.0, 3.0)

    def _send(self) -> None:
        """Have requests of this router in flight on all pods."""
        fleet, rng = self.fleet, self._rng
        pods = list(fleet)
        for _ in range(_OWN * len(pods)):
            question = self._question(next(self._adapters), None)
            answer = self.ask(question)
            state = answer.pod if isinstance(answer, Pick) else rng.choice(pods)
            assert isinstance(state, PodState)
            name, prompt = question[0].model, question[0].prompt
            assert prompt is not None
            fleet.ledger.reserve(state, name, tokens=prompt.tokens)
            fleet.prefixes.sent(state, name, prompt)

    def _fill(self, state: PodState) -> None:
        """Take all slots of a pod."""
        while (state.beliefs.free_slots or 0) > 0:
            self.fleet.ledger.reserve(state, next(self._adapters), tokens=100.0)

    def _exchange(self) -> None:
        """Exchange shares with a peer, which has requests on all pods."""
        fleet, now = self.fleet, self._clock.now()
        fleet.report_to_peers("first", _SHARE_SECONDS, {}, now)
        pods = {}
        for state in fleet:
            running = dict.fromkeys(islice(self._adapters, _PEERS), 1)
            server = state.pod.address, state.pod.uid
            pods[state.pod.name] = PodShare(server, len(running), running)
        number = int(1e3 * now)
        share = LedgerShare("second", number, 1e9, pods, {}, {"first": 1})
        fleet.put_peer(share, now)


_Question = tuple[InferenceRequest, Candidates]


def kinds(size: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield all kinds of decisions for requests of a size, with a call that decides one."""
    free = LargeFleet(size)
    for reason, asked in sorted(free.decisions().items()):
        yield reason, free.asking(asked)
    full = LargeFleet(size, is_full=True)
    for held_for, what in (
        (None, "held"),
        (_PATIENT_SECONDS, "asked again"),
        (_IMPATIENT_SECONDS, "asked again, a slot is closed for it"),
    ):
        found = full.decisions(held_for)
        yield f"all slots taken, {what}", full.asking(found["no-slot"])
        if held_for is None:
            yield "all slots taken, joined", full.asking(found["joined"])
    for room, what in ((ROOM, "some pods have no room"), (1, "no pod has room")):
        limited = LargeFleet(size, overload=Overload(max_requests_per_pod=room))
        found = limited.decisions()
        counts = Counter({reason: len(asked) for reason, asked in found.items()})
        for reason, _ in counts.most_common(3):
            yield f"{what}, {reason}", limited.asking(found[reason])


def _by_popularity(names: Sequence[str], rng: random.Random) -> Sequence[str]:
    weights = [1.0 / rank for rank in range(1, len(names) + 1)]
    return rng.choices(names, weights, k=4 * len(names))


def _read(size: int) -> Prompt:
    fields = read_body(body(size, adapter(0)), "application/json").document
    prompt = read_prompt(fields, PATH, adapter(0), TokenLengths())
    assert prompt is not None
    return prompt


def _ignore(_outcome: object) -> None: ...
