"""In a large fleet, inspecting a few pods finds what inspecting all of them would find."""

import random
from collections.abc import Sequence

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.candidates import FULL_LOOK, Candidates
from lora_router.routing.load_score import load_scores
from lora_router.routing.registry import load_algorithms
from tests.fleet import make_fleet, make_metrics, state_of
from tests.parameters import mostly_slow

ADAPTERS = tuple(f"a{number}" for number in range(200))
PODS = 60


def busy_fleet(seed: int, *, slots: int = 4, requests: int = 400) -> Fleet:
    """Return a fleet with requests, open and ended, where ``lora-affinity`` or chance puts them."""
    rng = random.Random(seed)
    fleet = make_fleet(PODS, adapters=ADAPTERS)
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=slots))
    open_requests = []
    for _ in range(requests):
        adapter = rng.choice((None, *rng.sample(ADAPTERS, 3), *ADAPTERS[:4]))
        state = state_of(fleet, rng.randint(1, PODS))
        if adapter is not None and rng.random() < 0.7:
            running = list(fleet.index.running(adapter))
            state = rng.choice(running) if running else state
        open_requests.append(fleet.ledger.reserve(state, adapter))
        if rng.random() < 0.4:
            open_requests.pop(rng.randrange(len(open_requests))).release()
    return fleet


def test_small_fleets_and_filtered_ones_are_looked_at_in_full() -> None:
    small = make_fleet(FULL_LOOK, adapters=ADAPTERS)
    assert len(Candidates.of(small.ready()).shortlist("a1", random.Random(1))) == FULL_LOOK
    some = Candidates.of(list(busy_fleet(1).ready())[:50])
    assert some.shortlist("a1", random.Random(1)) is some


def test_it_is_short_and_has_nobody_from_elsewhere() -> None:
    fleet = busy_fleet(1)
    for number in range(1, 41):
        models = [ServedModel("base"), *(ServedModel(name, "base") for name in ADAPTERS)]
        fleet.put_models(state_of(fleet, number), [*models, ServedModel("only-here", "base")])
    narrowed = Candidates.of(fleet.serving("only-here").pods)
    assert len(narrowed) == 40
    for adapter in (None, *ADAPTERS):
        looked_at = narrowed.shortlist(adapter, random.Random(1))
        assert 0 < len(looked_at) <= 16
        assert set(looked_at) <= set(narrowed)
        assert len(set(looked_at)) == len(looked_at)


def test_the_pods_with_the_prompt_s_beginning_are_among_them() -> None:
    fleet = busy_fleet(1)
    everyone = Candidates.of(fleet.ready(), prefixes=fleet.prefixes)
    prompt = Prompt(200, (1, 2), (100, 200))
    for number in (7, 33):
        fleet.prefixes.sent(state_of(fleet, number), "a1", prompt)
    fleet.prefixes.sent(state_of(fleet, 8), "a1", Prompt(100, (1,), (100,)))
    rng = random.Random(1)
    usual = set(everyone.shortlist("a1", random.Random(1)))

    looked_at = everyone.shortlist("a1", rng, everyone.cached("a1", prompt))

    assert set(looked_at) == usual | {state_of(fleet, 7), state_of(fleet, 33)}


def test_of_many_pods_with_the_same_beginning_the_least_loaded_ones_are_among_them() -> None:
    fleet = busy_fleet(1)
    everyone = Candidates.of(fleet.ready(), prefixes=fleet.prefixes)
    system = Prompt(100, (1,), (100,))
    having = [state_of(fleet, number) for number in range(20, 36)]
    for state in having:
        fleet.prefixes.sent(state, "base", system)

    looked_at = everyone.shortlist(None, random.Random(1), everyone.cached("base", system))

    assert min(load_of(pod) for pod in having) == min(
        load_of(pod) for pod in looked_at if pod in having
    )
    assert len(looked_at) <= 16


@pytest.mark.parametrize("count", [25, 50])
def test_of_very_many_pods_with_the_same_beginning_others_are_among_them_each_time(
    count: int,
) -> None:
    fleet = make_fleet(PODS)
    everyone = Candidates.of(fleet.ready(), prefixes=fleet.prefixes)
    system = Prompt(100, (1,), (100,))
    having = [state_of(fleet, number) for number in range(5, 5 + count)]
    for state in having:
        # They are not among the least loaded ones of all.
        fleet.ledger.reserve(state, None)
        fleet.prefixes.sent(state, "base", system)
    rng = random.Random(1)
    found: set[PodView] = set()
    for _ in range(200):
        found.update(everyone.shortlist(None, rng, everyone.cached("base", system)))
    assert len(found.intersection(having)) > 10


@pytest.mark.parametrize("adapter", ADAPTERS[100:110])
def test_of_pods_that_cost_the_same_every_router_picks_the_same(adapter: str) -> None:
    fleet = make_fleet(PODS, adapters=ADAPTERS)
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=4))
    everyone = Candidates.of(fleet.ready())
    for seed in range(5):
        options = AlgorithmOptions(rng=random.Random(seed))
        pick = load_algorithms(options)["lora-placement"].pick(
            InferenceRequest(adapter, adapter), everyone, 1.0
        )
        assert isinstance(pick, Pick)
        assert pick.pod is everyone.first(adapter, 1)[0]


def load_of(pod: PodView) -> int:
    return pod.in_flight


@pytest.mark.parametrize("seed", mostly_slow(range(4)))
@pytest.mark.parametrize("name", ["least-request", "lora-affinity", "four-tier", "lora-residency"])
def test_what_is_picked_is_as_good(name: str, seed: int) -> None:
    fleet = busy_fleet(seed)
    everyone = Candidates.of(fleet.ready())
    rng = random.Random(seed)
    algorithm = load_algorithms(AlgorithmOptions(lora_affinity_threshold=1.0, rng=rng))[name]
    for adapter in (None, *ADAPTERS):
        rng.seed(seed)
        request = InferenceRequest(adapter or "base", adapter)
        quick = algorithm.pick(request, everyone, 1.0)
        full = algorithm.pick(request, Candidates.of(list(everyone)), 1.0)
        assert isinstance(quick, Pick)
        assert isinstance(full, Pick)
        assert quick.reason == full.reason
        if quick.reason != "all-full":
            assert load_of(quick.pod) == load_of(full.pod)


@pytest.mark.parametrize("requests", mostly_slow([150, 400, 900]))
def test_placement_joins_places_and_holds_as_it_would(requests: int) -> None:
    fleet = busy_fleet(5, requests=requests)
    everyone = Candidates.of(fleet.ready())
    algorithm = load_algorithms(AlgorithmOptions(rng=random.Random(1)))["lora-placement"]
    for adapter in ADAPTERS:
        request = InferenceRequest(adapter, adapter)
        quick = algorithm.pick(request, everyone, 1.0)
        full = algorithm.pick(request, Candidates.of(list(everyone)), 1.0)
        assert isinstance(quick, Hold) == isinstance(full, Hold)
        if isinstance(quick, Pick) and isinstance(full, Pick):
            assert quick.reason == full.reason
            # An adapter that is on very many pods is joined on one of the better ones.
            assert load_of(quick.pod) <= load_of(full.pod) + 2


def test_scores_of_load_are_those_of_the_whole_fleet() -> None:
    fleet = busy_fleet(2)
    everyone = Candidates.of(fleet.ready())
    scores = dict(zip(everyone, load_scores(everyone), strict=True))
    looked_at: Sequence[PodView] = everyone.shortlist("a1", random.Random(1))
    for pod, score in zip(looked_at, load_scores(looked_at), strict=True):
        assert isinstance(pod, PodState)
        assert score == scores[pod]


def test_the_load_of_a_large_fleet_has_the_requests_of_peers() -> None:
    here, there = make_fleet(PODS), make_fleet(PODS)
    Candidates.of(here.ready()).load()  # From now on there is an index.
    for number in range(1, PODS + 1):
        for _ in range(2):
            if number != 7:
                there.ledger.reserve(state_of(there, number), None)
    here.ledger.reserve(state_of(here, 7), None)

    here.put_peer(there.report_to_peers("there", 0.1, {}, 1.0), 1.0)

    assert Candidates.of(here.ready()).load().in_flight == 2 * (PODS - 1) + 1
    assert here.index.by_load.least(1, random.Random(1), None) == [state_of(here, 7)]

    here.forget_peer("there", 2.0)

    assert Candidates.of(here.ready()).load().in_flight == 1
    assert state_of(here, 7) not in here.index.by_load.least(1, random.Random(1), None)
