"""Explanations of what the director would do: the same as it does, without an effect."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.routing.algorithm import Cost, InferenceRequest, Pick, Sight
from lora_router.routing.candidates import Candidates
from lora_router.routing.explaining import Explained
from lora_router.routing.lora_affinity import LoraAffinity
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.model_rewrites import Rewrite, Target
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refused
from lora_router.routing.registry import load_algorithms
from lora_router.routing.roll import Limits
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.routing.choices import options
from tests.unit.routing.router import Router

ADAPTERS = ("sql", "law", "med", "fin")


def full_fleet(pods: int = 3, slots: int = 1, outliers: Outliers | None = None) -> Fleet:
    fleet = make_fleet(pods, adapters=ADAPTERS, outliers=outliers, host_memory=64)
    for state in fleet:
        fleet.put_metrics(state, make_metrics(max_lora=slots, scraped_at=100.0))
    return fleet


def explain(router: Router, model: str, **query: object) -> Explained:
    return router.director.explainer.explain(RouteQuery(model, **query))  # type: ignore[arg-type]


def costs(found: Explained) -> dict[str, Cost]:
    return {sight.pod: cost for sight, cost in zip(found.sights, found.costs, strict=True)}


def why_not(router: Router, found: Explained) -> dict[str, str]:
    explainer = router.director.explainer
    return {
        state.pod.name: why for state in router.fleet if (why := explainer.why_not(found, state))
    }


def everything(fleet: Fleet) -> object:
    """What a dry run must not change."""
    return fleet.ledger.total, [
        (
            state.pod,
            state.in_flight,
            dict(state.in_flight_adapters),
            state.beliefs.free_slots,
            state.beliefs.foreign_adapters,
            [state.beliefs.where(name) for name in ADAPTERS],
            state.health.state,
        )
        for state in fleet
    ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["request", "end", "scrape", "leave", "return", "wait"]),
        st.integers(0, 10),
    ),
    max_size=30,
)


@given(steps=STEPS, model=st.sampled_from(["base", *ADAPTERS, "nobody"]), slots=st.integers(1, 3))
def test_an_explanation_says_what_the_director_then_does_and_changes_nothing(
    steps: list[tuple[str, int]], model: str, slots: int
) -> None:
    router = Router(full_fleet(slots=slots), limits=Limits(requests=5, requests_per_model=2))
    running: list[Routed] = []
    for step, number in steps:
        if step == "request":
            outcome = router.send(ADAPTERS[number % 4])
            if isinstance(outcome, Routed):
                running.append(outcome)
        elif step == "end" and running:
            running.pop(number % len(running)).reservation.release()
        elif step == "scrape":
            state = state_of(router.fleet, 1 + number % 3)
            metrics = make_metrics(
                ADAPTERS[: number % 3], max_lora=slots, scraped_at=router.clock.now()
            )
            router.fleet.put_metrics(state, metrics)
        elif step in ("leave", "return"):
            router.fleet.upsert(make_pod(1 + number % 3, ready=step == "return"))
        else:
            router.clock.advance(number)
    before, seen, held = everything(router.fleet), len(router.decisions.seen), router.director.held

    found = explain(router, model)

    assert everything(router.fleet) == before
    assert (len(router.decisions.seen), router.director.held) == (seen, held)
    outcome = router.send(model)
    if isinstance(outcome, Routed):
        assert found.answer == "pick"
        assert found.reason == outcome.reason
        assert found.pod is not None
        if model == "base":  # The least loaded pods are picked by chance.
            costs_of = costs(found)
            picked = costs_of[outcome.reservation.state.pod.name]
            assert picked.terms == costs_of[found.pod.pod.name].terms
        else:
            # ``late`` requests may have been routed in between, not by this one.
            assert outcome.reservation.state is found.pod
    elif isinstance(outcome, Held):
        assert found.answer == "hold"
        assert found.reason == outcome.reason
    else:
        assert (found.answer, found.reason) == ("refuse", outcome.refusal.value)


@given(
    loads=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=2, max_size=5),
    size=st.integers(0, 20_000),
)
def test_what_lora_placement_places_is_the_cheapest_pod_of_its_own_terms(
    loads: list[tuple[int, int]], size: int
) -> None:
    fleet = full_fleet(len(loads), slots=2)
    for number, (requests, adapter) in enumerate(loads, start=1):
        for _ in range(requests):
            fleet.ledger.reserve(state_of(fleet, number), ADAPTERS[adapter])
    router = Router(fleet)

    found = explain(router, "fin", size=size)

    if found.answer == "pick" and found.reason != "no-slot-in-time":
        assert found.pod is not None
        sums = {
            pod: sum(cost.terms.values()) for pod, cost in costs(found).items() if not cost.excluded
        }
        assert sums[found.pod.pod.name] == pytest.approx(min(sums.values()))


def test_each_term_of_the_cost_is_told() -> None:
    fleet = full_fleet(3, slots=2)
    fleet.ledger.reserve(state_of(fleet, 1), "sql")
    fleet.ledger.reserve(state_of(fleet, 1), "sql")
    fleet.ledger.reserve(state_of(fleet, 2), "law").release()
    found = explain(Router(fleet), "sql")

    terms = costs(found)
    # The last scrape showed one more.
    assert terms["pod-1"].terms == {"requests": 3}
    # Never there: 1.5 s of loading at 200 a second, shared by two requests in flight.
    assert terms["pod-2"].terms["adapter-load"] == pytest.approx(300 / 1.5)
    # One of six slots is in use.
    assert terms["pod-2"].terms["slot"] == pytest.approx(24 / 5)


def test_an_adapter_in_host_memory_costs_less_than_one_that_was_never_there() -> None:
    fleet = full_fleet(2, slots=1)
    for name in ("sql", "law"):
        fleet.ledger.reserve(state_of(fleet, 1), name).release()

    terms = costs(explain(Router(fleet), "sql"))

    assert terms["pod-1"].terms["adapter-load"] == pytest.approx(16)
    assert terms["pod-2"].terms["adapter-load"] == pytest.approx(300)


def test_a_slot_that_is_being_emptied_for_another_adapter_is_excluded() -> None:
    router = Router(full_fleet(1))
    router.routed("sql")
    router.held("law")
    router.clock.advance(7.0)

    found = explain(router, "sql")

    assert found.answer == "hold"
    assert costs(found)["pod-1"].excluded == "its slot is being emptied for an adapter that waits"


def test_a_slot_that_would_be_closed_is_told() -> None:
    router = Router(full_fleet(1))
    router.routed("sql")
    router.held("law")
    router.clock.advance(7.0)

    found = explain(router, "law")

    assert found.closed is not None
    assert (found.closed[0].pod.name, found.closed[1], found.held) == ("pod-1", "sql", 1)


def test_pods_that_are_no_candidates_have_a_reason() -> None:
    outliers = Outliers(HealthRules(), lambda: 100.0)
    fleet = full_fleet(5, outliers=outliers)
    fleet.upsert(make_pod(2, ready=False))
    fleet.put_models(state_of(fleet, 3), ())
    outliers.unwell.eject(state_of(fleet, 4), "status 503", 100.0)
    fleet.upsert(make_pod(5, labels={"tier": "spare"}))
    router = Router(fleet)

    found = explain(router, "sql", pod_filter="tier!=spare")

    assert found.pod is state_of(fleet, 1)
    assert why_not(router, found) == {
        "pod-2": "not ready",
        "pod-3": "does not serve the model",
        "pod-4": "ejected: status 503",
        "pod-5": "its labels do not fit the filter tier!=spare",
    }


@pytest.mark.parametrize(
    ("model", "query", "reason"),
    [
        ("", {}, "no-model"),
        ("sql", {"strategy": "best"}, "unknown-algorithm"),
        ("sql", {"pod_filter": "tier=("}, "bad-selector"),
        ("sql", {"pod_filter": "tier=gold"}, "none-selected"),
        ("nobody", {}, "unknown-model"),
    ],
)
def test_a_request_that_would_be_refused_is_explained_as_it_is_refused(
    model: str, query: Mapping[str, object], reason: str
) -> None:
    router = Router(full_fleet())

    found = explain(router, model, **query)

    assert (found.answer, found.reason) == ("refuse", reason)
    refused = router.send(model, **query)  # type: ignore[arg-type]
    assert isinstance(refused, Refused)
    assert refused.refusal.value == reason


def test_a_name_that_is_rewritten_is_explained_as_what_it_stands_for() -> None:
    names = NamePolicy(rewrites=(Rewrite("best", (Target("sql", 1),)),))

    found = explain(Router(full_fleet(), names=names), "best")

    assert (found.query.model, found.model, found.adapter) == ("best", "sql", "sql")


def test_an_adapter_without_pods_in_use_falls_back_as_the_director_does() -> None:
    outliers = Outliers(HealthRules(max_ejected_share=1.0), lambda: 100.0)
    fleet = full_fleet(2, outliers=outliers)
    fleet.put_models(state_of(fleet, 1), ())
    fleet.upsert(make_pod(1, models=("base",)))
    outliers.unwell.eject(state_of(fleet, 2), "status 503", 100.0)
    router = Router(fleet, names=NamePolicy(falls_back=True))

    found = explain(router, "sql")

    assert (found.answer, found.reason) == ("pick", "base-fallback")
    assert router.routed("sql").reason == "base-fallback"


ALGORITHMS = load_algorithms(options())


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
@pytest.mark.parametrize("adapter", ["sql", None])
def test_each_algorithm_explains_live_and_past_decisions(name: str, adapter: str | None) -> None:
    fleet = full_fleet(3)
    fleet.ledger.reserve(state_of(fleet, 1), "sql")
    fleet.ledger.reserve(state_of(fleet, 2), "law")
    router = Router(fleet, ALGORITHMS[name])
    request = InferenceRequest(adapter or "base", adapter)
    place = "running" if adapter else ""
    past = (
        Sight("pod-1", 1, 0, place),
        Sight("pod-2", 1, 0, "nowhere" if adapter else ""),
        Sight("pod-3", 0, 1, "nowhere" if adapter else ""),
    )

    found = explain(router, adapter or "base")
    kept = router.director.explainer.costs(name, request, past)

    assert len(found.costs) == len(found.sights) > 0
    assert len(kept) == 3
    assert found.pod is not None
    assert not costs(found)[found.pod.pod.name].excluded


@pytest.mark.parametrize("name", ["least-request", "four-tier", "lora-residency", "lora-affinity"])
@given(requests=st.lists(st.integers(0, 5), min_size=3, max_size=3, unique=True))
def test_where_nothing_is_left_to_chance_the_lowest_cost_is_picked(
    name: str, requests: list[int]
) -> None:
    fleet = full_fleet(3, slots=2)
    for number, count in enumerate(requests, start=1):
        for _ in range(count):
            fleet.ledger.reserve(state_of(fleet, number), None)
    algorithm = ALGORITHMS[name]
    found = explain(Router(fleet, algorithm), "sql")

    candidates = Candidates.of(fleet.serving("sql").pods)
    answer = algorithm.pick(InferenceRequest("sql", "sql"), candidates, 100.0)

    assert isinstance(answer, Pick)
    cheapest = min(
        (cost for cost in costs(found).items() if not cost[1].excluded),
        key=lambda each: sum(each[1].terms.values()),
    )
    assert answer.pod.pod.name == cheapest[0]


def test_an_algorithm_that_does_not_explain_itself_has_no_terms() -> None:
    class First:
        name = "first"

        def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
            return Pick(candidates[0], "first")

    class Boastful(First):
        def terms(self, *_args: object) -> list[str]:
            return ["best"]

    class Broken(First):
        def terms(self, *_args: object) -> list[Cost]:
            raise RuntimeError("no")

    for algorithm in (First(), Boastful(), Broken()):
        found = explain(Router(full_fleet(), algorithm), "sql")
        assert found.answer == "pick"
        assert all(cost == Cost() for cost in found.costs)


def test_lora_affinity_explains_why_pods_without_the_adapter_are_left() -> None:
    fleet = full_fleet(3, slots=1)
    fleet.ledger.reserve(state_of(fleet, 1), "sql")
    fleet.ledger.reserve(state_of(fleet, 2), "law")

    terms = costs(explain(Router(fleet, LoraAffinity(options())), "sql"))

    assert terms["pod-1"].terms == {"requests": 1}
    assert terms["pod-2"].excluded == "no free slot"
    assert terms["pod-3"].excluded == "the adapter is on other pods"


def test_a_past_decision_is_explained_by_what_it_saw_alone() -> None:
    algorithm = LoraPlacement(options())
    seen = (
        Sight("pod-1", 4, 0, "running"),
        Sight("pod-2", 1, 1, "host-memory"),
        Sight("pod-3", 0, 0, "nowhere"),
        Sight("pod-4", 2, None, "slot"),
    )

    terms = algorithm.terms(InferenceRequest("sql", "sql", size=2048), seen, None, 0.0)

    assert [dict(cost.terms) for cost in terms] == [
        {"requests": 4},
        {"requests": 1, "adapter-load": pytest.approx(16)},
        {},
        {"requests": 2, "adapter-load": 0.0},
    ]
    assert terms[2].excluded == "no free slot"
