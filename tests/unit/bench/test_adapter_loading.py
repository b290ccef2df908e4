from bench.adapter_loading import (
    Case,
    Change,
    Outcome,
    scenario_of,
    table,
    worst_adapter,
    worst_group,
)
from lora_router.simulator.trace import BASE_MODEL


def _outcome(*times: float, adapter: str = "a") -> Outcome:
    return Outcome(sorted(times), {adapter: times})


def test_a_quarter_of_host_memory_holds_a_quarter_of_the_adapters() -> None:
    scenario = scenario_of(Case("b-zipf", "a quarter", "before", 11))
    assert scenario.keys.max_cpu_loras == (16,)
    assert scenario.keys.loader is not None
    assert scenario_of(Case("b-zipf", "all", "without", 11)).keys.loader is None


def test_each_row_compares_the_p99_with_that_of_pods_that_load_by_themselves() -> None:
    p99 = {"without": 4.0, "before": 1.0, "from the start": 2.0}
    outcomes = {
        Case("b-zipf", "all", loader, 1): _outcome(seconds) for loader, seconds in p99.items()
    }
    perfect = {Case("b-zipf", "all", "before", 1): 0.8}
    row = "| `b-zipf` | all | 4.00 | 1.00 | 0.25 | 2.00 | 0.50 | 0.80 | 0.20 | - | - |"
    assert row in table(outcomes, perfect)


def test_the_p99_of_adapters_is_compared_by_how_popular_they_are_whatever_their_names() -> None:
    before = [Outcome((), {"x": [1.0] * 900, "y": [2.0] * 500}), Outcome((), {"z": [1.0] * 700})]
    after = [Outcome((), {"x": [0.5] * 900, "y": [3.0] * 500}), Outcome((), {"z": [0.5] * 700})]
    whole = worst_group(before, after)
    assert whole == Change(2.0, 3.0), "the rare one joins those before it: 500 are too few"
    assert whole.quotient == 1.5
    rare_is_better = [Outcome((), {"x": [0.5] * 900, "y": [1.0] * 500}), after[1]]
    assert worst_group(before, rare_is_better) == Change(2.0, 1.0)


def test_a_few_requests_have_no_p99_that_is_compared() -> None:
    few = [_outcome(*[1.0] * 99)]
    assert worst_group(few, few) is None
    assert worst_adapter(few, few) is None


def test_a_single_adapter_is_compared_by_the_slowest_tenth_of_its_requests() -> None:
    before = [_outcome(*[1.0] * 90, *[2.0] * 10)]
    after = [_outcome(*[0.1] * 90, *[3.0] * 10)]
    assert worst_adapter(before, after) == 1.5


def test_the_base_model_is_not_compared_with_adapters() -> None:
    before = [Outcome((), {BASE_MODEL: [1.0] * 100, "a": [2.0] * 100})]
    other = Outcome((), {"a": [2.0] * 100})
    after = [Outcome((), {BASE_MODEL: [1.5] * 100, "a": [2.0] * 100})]
    assert worst_adapter([*before, other], [*after, other]) == 1.5
