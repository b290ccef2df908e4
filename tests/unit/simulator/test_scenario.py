"""Scenarios: those of the package, files, and errors in a file."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_placement import LoraPlacement
from lora_router.routing.overload import Overload
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.fleet_options import FleetOptions, RouterEvent, RouterTrouble
from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.goodput import Goodput
from lora_router.simulator.lengths import Even, Lognormal, Mixed
from lora_router.simulator.network import WireOptions
from lora_router.simulator.scenario import (
    Scenario,
    ScenarioError,
    find_scenario,
    read_scenario,
    shipped_scenario,
    shipped_scenarios,
)
from lora_router.simulator.sessions import Sessions
from lora_router.simulator.trace import Arrival, Workload, make_trace
from tests.parameters import mostly_slow
from tests.scripts import load_script

BENCH = sorted((Path(__file__).parents[3] / "bench/scenarios").glob("*.yaml"))
SMALL = {"about": "x", "pods": "2", "slots": "[2]", "adapters": "4", "rate": "1"}


def least_request(rng: random.Random) -> LeastRequest:
    return LeastRequest(AlgorithmOptions(rng=rng))


def lora_placement(rng: random.Random) -> LoraPlacement:
    return LoraPlacement(AlgorithmOptions(rng=rng))


def written(directory: Path, *lines: str) -> Path:
    """Write a small scenario file. The given lines replace or add keys."""
    given = {line.partition(":")[0] for text in lines for line in text.splitlines()}
    rest = [f"{key}: {value}" for key, value in SMALL.items() if key not in given]
    file = directory / "mine.yaml"
    file.write_text("\n".join([*rest, *lines]))
    return file


def fleet(directory: Path, *lines: str) -> FleetOptions:
    return read_scenario(written(directory, *lines)).fleet(100.0)


# Those that come with the package


@pytest.mark.parametrize("name", mostly_slow(shipped_scenarios()))
def test_every_shipped_scenario_can_be_played(name: str) -> None:
    scenario = shipped_scenario(name)
    trace = list(make_trace(scenario.workload, rate=scenario.rate, seconds=10.0, seed=1))

    run = FleetSimulation(scenario.fleet(10.0), least_request, seed=1).run(trace)

    assert scenario.name == name
    assert len(run.requests) == len(trace)


def test_a_name_is_a_shipped_scenario_and_the_rest_are_files(tmp_path: Path) -> None:
    assert find_scenario("b-zipf") == shipped_scenario("b-zipf")
    assert find_scenario(str(written(tmp_path))).name == "mine"


def test_an_unknown_name_lists_the_scenarios_and_the_closest_one() -> None:
    with pytest.raises(ScenarioError) as error:
        find_scenario("b-zip")
    assert "there is no scenario 'b-zip'. Did you mean b-zipf?" in str(error.value)
    assert ", ".join(shipped_scenarios()) in str(error.value)


# The fleet


def test_without_keys_of_its_own_an_engine_is_the_default_one(tmp_path: Path) -> None:
    assert fleet(tmp_path).engines == (EngineOptions(max_loras=2),) * 2
    assert fleet(tmp_path).preloaded_on(0) == fleet(tmp_path).adapters


def test_the_flags_and_speed_of_a_real_server_can_be_written_down(tmp_path: Path) -> None:
    keys = (
        "slots: 8",
        "max_cpu_loras: 32",
        "max_num_seqs: 128",
        "kv_cache_tokens: 54_321",
        "step_ms: 11",
        "step_ms_per_request: 0.25",
        "prefill_tokens_per_second: 4000",
        "host_load_ms: 35",
        "disk_load_ms: 900",
        "loads_block: false",
    )
    assert fleet(tmp_path, *keys).engines[1] == EngineOptions(
        max_loras=8,
        max_cpu_loras=32,
        max_num_seqs=128,
        kv_cache_tokens=54_321,
        step_seconds=0.011,
        step_seconds_per_request=0.00025,
        prefill_seconds_per_token=1 / 4000,
        host_load_seconds=0.035,
        disk_load_seconds=0.9,
        loads_block=False,
    )


def test_pods_take_the_values_of_a_list_in_turn(tmp_path: Path) -> None:
    mixed = fleet(tmp_path, "pods: 3", "slots: [2, 8]", "step_ms: [10, 20, 30]")

    assert [engine.max_loras for engine in mixed.engines] == [2, 8, 2]
    assert [engine.step_seconds for engine in mixed.engines] == [0.01, 0.02, 0.03]


def test_host_memory_can_be_as_large_as_the_slots_or_unlimited(tmp_path: Path) -> None:
    as_vllm = fleet(tmp_path, "slots: [2, 8]", "adapters: 20", "max_cpu_loras: slots")
    unlimited = fleet(tmp_path, "adapters: 2000", "max_cpu_loras: unlimited")

    assert [engine.max_cpu_loras for engine in as_vllm.engines] == [2, 8]
    assert as_vllm.preloaded_on(0) == ("adapter-000", "adapter-001")
    assert unlimited.preloaded_on(0) == unlimited.adapters


@pytest.mark.parametrize(
    ("preload", "names"),
    [
        ("none", ()),
        ("2", ("adapter-000", "adapter-001")),
        ("[adapter-003, adapter-001]", ("adapter-003", "adapter-001")),
    ],
)
def test_preload_says_what_is_in_host_memory_at_the_start(
    tmp_path: Path, preload: str, names: tuple[str, ...]
) -> None:
    assert fleet(tmp_path, f"preload: {preload}").preloaded_on(1) == names


def test_what_is_not_preloaded_is_loaded_from_disk_once_on_a_pod(tmp_path: Path) -> None:
    def first_tokens(preload: str) -> list[float]:
        keys = (f"preload: {preload}", "pods: 1", "disk_load_ms: 3000", "host_load_ms: 0")
        trace = [Arrival(at, "adapter-000", 10, 1) for at in (0.0, 10.0)]
        run = FleetSimulation(fleet(tmp_path, *keys), least_request, seed=1).run(trace)
        return [request.first_token - request.arrived for request in run.requests]

    assert first_tokens("all") == pytest.approx([0.0215, 0.0215])
    assert first_tokens("none") == pytest.approx([3.0215, 0.0215])


def test_a_fast_pod_computes_sooner_and_loads_no_sooner(tmp_path: Path) -> None:
    keys = ("speed: [1, 2]", "prefill_tokens_per_second: 1000", "step_ms: 8", "disk_load_ms: 90")
    slow, fast = fleet(tmp_path, *keys).engines[:2]

    assert fast.step_seconds == slow.step_seconds / 2
    assert fast.step_seconds_per_request == slow.step_seconds_per_request / 2
    assert fast.prefill_seconds_per_token == slow.prefill_seconds_per_token / 2
    assert fast.disk_load_seconds == slow.disk_load_seconds == 0.09


def test_the_kv_cache_of_a_scenario_is_that_of_the_pods(tmp_path: Path) -> None:
    keys = (
        "prefix_caching: true",
        "preemption: true",
        "chunk_tokens: [2048, 512]",
        "block_tokens: 32",
    )
    first, second = fleet(tmp_path, *keys).engines[:2]

    assert (first.prefix_caching, first.preemption, first.block_tokens) == (True, True, 32)
    assert (first.chunk_tokens, second.chunk_tokens) == (2048, 512)


def test_preloaded_names_are_those_of_the_trace_that_is_replayed(tmp_path: Path) -> None:
    scenario = read_scenario(written(tmp_path, "preload: [sql]"))

    assert scenario.fleet(10.0, adapters=["chat", "sql"]).preloaded_on(0) == ("sql",)
    with pytest.raises(ScenarioError, match="preload: the fleet serves no adapter 'sql'"):
        scenario.fleet(10.0)


# The traffic


def test_chats_and_heavy_tails_can_be_written_down(tmp_path: Path) -> None:
    keys = (
        "prompt_tokens: {median: 200, sigma: 1.2, most: 16000}",
        "output_tokens: [5, 10]",
        "long_prompts: {share: 0.1, tokens: [20000, 30000]}",
        "sessions: {turns: [2, 8], first_prompt_tokens: [9, 9], growth_tokens: [70, 80], "
        "think_seconds: 20, share: 0.5, system_tokens: 100}",
    )
    workload = read_scenario(written(tmp_path, *keys)).workload

    assert workload.prompt_tokens == Mixed(
        Lognormal(200, 1.2, 16_000), Even(20_000, 30_000), share=0.1
    )
    assert workload.output_tokens == Even(5, 10)
    assert workload.sessions == Sessions(
        Even(2, 8), Even(9, 9), Even(70, 80), think_seconds=20, share=0.5, system_tokens=100
    )


def test_without_such_keys_requests_are_single_and_short(tmp_path: Path) -> None:
    assert read_scenario(written(tmp_path)).workload == Workload(4)


def test_the_limits_of_a_good_request_can_be_written_down(tmp_path: Path) -> None:
    assert read_scenario(written(tmp_path)).goodput == Goodput(2.0, 0.05)
    slow = read_scenario(written(tmp_path, "goodput: {ttft_seconds: 5, tpot_ms: 100}"))
    assert slow.goodput == Goodput(5.0, 0.1)


def test_a_load_is_a_share_of_the_capacity(tmp_path: Path) -> None:
    assert read_scenario(written(tmp_path, "capacity: 20")).rate_at(0.85) == pytest.approx(17.0)
    with pytest.raises(ScenarioError, match=r"mine\.yaml: capacity: is required for --load"):
        read_scenario(written(tmp_path)).rate_at(0.85)


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCH, ids=lambda path: path.stem)
def test_every_scenario_of_the_benches_can_be_played(path: Path) -> None:
    scenario = read_scenario(path)
    trace = list(make_trace(scenario.workload, rate=scenario.rate, seconds=2.0, seed=1))

    run = FleetSimulation(scenario.fleet(2.0), least_request, seed=1).run(trace)

    assert len(run.requests) == len(trace)


# Errors in a file


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("podz: 3", "podz: is not a key; did you mean pods?"),
        ("nothing_like_it: 3", "nothing_like_it: is not a key; the keys are about, pods, slots"),
        ("7: 3", "7: is not a key"),
        ("pods: 0", "pods: must be a whole number from 1 to 10,000, not 0"),
        ("pods: 2.5", "pods: must be a whole number from 1 to 10,000, not 2.5"),
        ("pods: true", "pods: must be a whole number from 1 to 10,000, not true"),
        ("pods: '2'", "pods: must be a whole number from 1 to 10,000, not '2'"),
        (f"pods: {'9' * 90}", f"pods: must be a whole number from 1 to 10,000, not {'9' * 59}…"),
        ("rate: often", "rate: must be a number from 0.001 to 1,000,000, not 'often'"),
        ("rate: .nan", "rate: must be a number from 0.001 to 1,000,000, not nan"),
        ("rate: .inf", "rate: must be a number from 0.001 to 1,000,000, not inf"),
        ("rate: -1", "rate: must be a number from 0.001 to 1,000,000, not -1"),
        (f"rate: {'9' * 90}", "rate: must be a number from 0.001 to 1,000,000, not 999"),
        ("about: ''", "about: must be a line of text of 1 to 200 characters, not ''"),
        ("about:", "about: must be a line of text of 1 to 200 characters, not null"),
        (
            "pods: 1e3",
            "pods: must be a whole number from 1 to 10,000, not '1e3', which YAML reads as text: "
            "write it in digits, without quotes",
        ),
        ("seconds: 2024-01-01", "seconds: must be a number from 1 to 1,000,000, not 2024-01-01"),
        ("slots: [null]", "slots[0]: must be a whole number from 1 to 10,000, not null"),
        ("slots: []", "slots: must be a whole number from 1 to 10,000, or a list of such values"),
        ("slots: [2, no]", "slots[1]: must be a whole number from 1 to 10,000, not false"),
        ("step_ms: 0", "step_ms: must be a number from 0.01 to 60,000, not 0"),
        ("loads_block: 1", "loads_block: must be true or false, not 1"),
        ("output_tokens: [9, 3]", "output_tokens: the first must not be above the second: [9, 3]"),
        ("output_tokens: [3]", "output_tokens: must be [smallest, largest], each a whole number"),
        ("output_tokens: [0, 3]", "output_tokens[0]: must be a whole number from 1 to"),
        ("prompt_tokens: {median: 9}", "prompt_tokens.sigma: is required: a number from 0 to 5"),
        (
            "prompt_tokens: {median: 99, sigma: 1, most: 20}",
            "prompt_tokens.median: must not be above most (20), not 99",
        ),
        ("prompt_tokens: 9", "prompt_tokens: must be [smallest, largest], each a whole number fr"),
        ("sessions: {turns: 3}", "sessions.turns: must be [smallest, largest], each a whole num"),
        ("sessions: {turns: [3, 9]}", "sessions.first_prompt_tokens: is required: [smallest, l"),
        ("long_prompts: {share: 2}", "long_prompts.share: must be a number from 0 to 1, not 2"),
        ("goodput: {tpot_ms: 0}", "goodput.tpot_ms: must be a number from 0.01 to 1,000,000, not"),
        ("bursts: {every_seconds: 9}", "bursts.requests: is required: a whole number from 1 to"),
        (
            "bursts: {every_seconds: 9, requests: 5, within_seconds: 10}",
            "bursts.within_seconds: must be at most every_seconds (9), not 10",
        ),
        ("recorded: pcap", "recorded: must be csv, mooncake, azure or burstgpt, not 'pcap'"),
        ("router: {max_hold: 5}", "router.max_hold: is not a key; did you mean max_hold_seconds?"),
        ("capacity: 0", "capacity: must be a number from 0.001 to 1,000,000, not 0"),
        ("max_cpu_loras: 1", "max_cpu_loras: must be at least the slots of each pod (2 on pod 0)"),
        ("max_cpu_loras: much", "max_cpu_loras: must be slots, unlimited, or a whole number from"),
        (
            "max_num_seqs: 64\nchunk_tokens: [64, 63]",
            "chunk_tokens: must be at least max_num_seqs (64 on pod 1)",
        ),
        (
            "preemption: true\nkv_cache_tokens: 9",
            "kv_cache_tokens: must be at least block_tokens (16 on pod 0)",
        ),
        ("prefix_caching: 1", "prefix_caching: must be true or false, not 1"),
        (
            "kv_cache_tokens: [9000, 10]",
            "kv_cache_tokens: must be at least the longest prompt and answer (700 tokens), not 10",
        ),
        (
            "autoscaler: {min_pods: 1, max_pods: 2, slots_per_pod: 2}\nslots: 2",
            "autoscaler.slots_per_pod: must be below slots (2), not 2",
        ),
        ("preload: 5\nadapters: 4", "preload: must be at most adapters (4), not 5"),
        ("speed: 0", "speed: must be a number from 0.01 to 100"),
        ("preload: some", "preload: must be all, none, or a whole number from 0 to 100,000, or a"),
        ("preload: [a, a]", "preload: must be all, none, or"),
        ("preload: [3]", "preload[0]: must be a line of text"),
        ("preload: 65", "preload: must be at most max_cpu_loras of each pod (64 on pod 0)"),
        (
            "preload: all\nmax_cpu_loras: unlimited\nadapters: 100000\npods: 51",
            "preload: must be at most 5,000,000 adapters on all pods together, not 5,100,000",
        ),
        (
            "crowd: {at: 0.9, lasts: 0.5, share: 0.5}",
            "crowd.lasts: must end with the trace, at most 0.1 after at (0.9), not 0.5",
        ),
        ("crowd: 3", "crowd: must be a mapping with the keys at, lasts, share, not 3"),
        ("crowd: {at: 0.1, lasts: 2, share: 0.5}", "crowd.lasts: must be a number from 0 to 1"),
        ("crowd: {at: 0.1, lasts: 0.2}", "crowd.share: is required: a number from 0 to 1"),
        ("outages: [{pod: 99, at: 0.1, lasts: 0.1}]", "outages[0].pod: must be below pods (2)"),
        ("outages: [{pot: 1}]", "outages[0].pot: is not a key; did you mean pod?"),
        (f"rate: {'9' * 4000}", "line 5, column 7: "),
        ("[", "line 7, column 1: not YAML"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_key_and_what_is_allowed(
    tmp_path: Path, line: str, complaint: str
) -> None:
    file = written(tmp_path, line)
    with pytest.raises(ScenarioError) as error:
        read_scenario(file)
    assert str(error.value).startswith(f"{file}: {complaint}")


@pytest.mark.parametrize("text", ["", "just words", "- a list"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ScenarioError, match="must be a mapping with the keys about, pods"):
        read_scenario(file)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        read_scenario(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match=r"binary\.yaml: line 1: not YAML"):
        read_scenario(tmp_path / "binary.yaml")


def test_absent_and_empty_optional_keys_are_the_same(tmp_path: Path) -> None:
    absent = read_scenario(written(tmp_path))
    empty = read_scenario(written(tmp_path, "crowd:", "shuffle_seconds:"))
    assert isinstance(absent, Scenario)
    assert replace(absent, where="") == replace(empty, where="")


# Routers


def test_settings_of_the_routers_can_be_written_down(tmp_path: Path) -> None:
    found = fleet(
        tmp_path, "router: {max_hold_seconds: 5, closed_slots_share: 0.2, overload: hold}"
    )
    assert found.max_hold_seconds == 5.0
    assert found.overload == Overload(closed_slots_share=0.2)
    assert fleet(tmp_path).overload == Overload(sheds=True)


def test_a_request_waits_on_a_pod_after_the_longest_hold(tmp_path: Path) -> None:
    keys = ("pods: 1", "slots: 1", "router: {max_hold_seconds: 2}")
    trace = [Arrival(1.0, "adapter-000", 10, 400), Arrival(1.1, "adapter-001", 10, 1)]
    simulation = FleetSimulation(fleet(tmp_path, *keys), lora_placement, seed=1)

    (held,) = (each for each in simulation.run(trace).requests if each.model == "adapter-001")

    assert held.sent - held.arrived == pytest.approx(2.0)


def test_the_network_between_routers_and_their_faults_can_be_written_down(tmp_path: Path) -> None:
    keys = (
        "wire: {delay_ms: 50, jitter_ms: 0, loss: 0.05, late: 0.01}",
        "router_events:",
        "  - {event: killed, router: 1, at: 0.5, seconds: 10}",
        "clock_rates: [1, 0.9]",
    )
    found = read_scenario(written(tmp_path, *keys)).fleet(100.0, routers=2)

    assert found.wire == WireOptions(0.05, 0.0, 0.05, 0.01)
    assert found.router_events == (RouterEvent(RouterTrouble.KILLED, 1, 50.0, 10.0),)
    assert found.clock_rates == (1.0, 0.9)


def test_without_such_keys_messages_take_a_few_milliseconds_and_nothing_happens(
    tmp_path: Path,
) -> None:
    found = fleet(tmp_path)
    assert (found.wire, found.router_events, found.clock_rates) == (WireOptions(), (), (1.0,))


def test_an_event_of_a_router_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    line = "router_events: [{event: stalled, router: 2, at: 0, seconds: 1}]"
    scenario = read_scenario(written(tmp_path, line))
    with pytest.raises(ScenarioError, match=r"router_events\[0\].router: must be below"):
        scenario.fleet(100.0, routers=2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("wire: {loss: 1}", "wire.loss: must be a number from 0 to 0.9, not 1"),
        ("wire: {delay: 1}", "wire.delay: is not a key; did you mean delay_ms?"),
        ("clock_rates: 0", "clock_rates: must be a number from 0.5 to 2, not 0"),
        (
            "router_events: [{event: killd, router: 0, at: 0, seconds: 1}]",
            "router_events[0].event: must be killed, stalled or parted, not 'killd'",
        ),
    ],
)
def test_a_wrong_key_of_routers_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        read_scenario(written(tmp_path, line))
    assert message in str(error.value)


def test_the_tables_of_the_documentation_are_up_to_date() -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs/simulator.md").read_text()

    assert load_script(root / "docs/write_simulator.py").with_tables(page) == page, (
        "run `make scenario-keys`"
    )


def test_the_example_of_the_documentation_can_be_played(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/simulator.md").read_text()
    file = tmp_path / "example.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])

    example = read_scenario(file).fleet(10.0)

    assert [engine.max_cpu_loras for engine in example.engines] == [32, 32, 2] * 2
    assert example.preloaded_on(0) == ()
