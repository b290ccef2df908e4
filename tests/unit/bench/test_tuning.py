"""What each setting is worth: the variations that are compared, and their tables."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.routing_runs import RunFile, make_runs
from bench.tuning import (
    SLOT_BOUND,
    SLOTS,
    Variation,
    host_memory_variations,
    slot_variations,
    table,
)


def test_host_memory_grows_from_what_vllm_has_without_the_flag_to_all_of_it_preloaded() -> None:
    fleets = [
        variation.setting.scenario.fleet(60.0)
        for variation in host_memory_variations()
        if variation.scenario == "b-zipf"
    ]

    sizes = [fleet.engines[0].max_cpu_loras for fleet in fleets]
    assert sizes[0] == fleets[0].engines[0].max_loras
    assert sizes == sorted(sizes)
    assert [bool(fleet.preloaded) for fleet in fleets] == [False, False, False, True]
    assert all(fleet.host_memory_told for fleet in fleets)


def test_each_slot_bound_scenario_is_tried_with_each_number_of_slots() -> None:
    assert [
        (variation.scenario, variation.setting.scenario.fleet(60.0).engines[0].max_loras)
        for variation in slot_variations()
    ] == [(scenario, slots) for scenario in SLOT_BOUND for slots in SLOTS]


@pytest.mark.slow
def test_a_row_has_its_figures_beside_the_first_row_of_its_scenario(tmp_path: Path) -> None:
    shown = [_shortened(each) for each in slot_variations() if each.scenario == "c-slot-bound"][:2]
    seeds = [1]
    file = RunFile(tmp_path / "runs.jsonl", lambda _policy: "test")
    make_runs(file, [run for each in shown for run in each.runs(seeds)], processes=1)

    _, _, first, second = table("slots", shown, file, seeds).splitlines()

    assert first.startswith("| `c-slot-bound` | 2 | ")
    assert first.split(" | ")[4] == "1.00"
    assert second.startswith("| `c-slot-bound` | 4 | ")
    assert float(second.split(" | ")[4]) <= 1.0


def _shortened(variation: Variation) -> Variation:
    return replace(variation, setting=replace(variation.setting, seconds=30.0))
