"""``lora-router simulate`` with scenarios that come with the package."""

import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from typer.testing import CliRunner, Result

from lora_router.cli.commands import app
from lora_router.cli.simulate import complete_scenario
from lora_router.simulator.policies.table import POLICIES
from lora_router.simulator.scenario import shipped_scenarios


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments])


@pytest.mark.slow
def test_a_shipped_scenario_is_named_without_its_file() -> None:
    result = simulate("c-slot-bound", "--algorithm", "least-request", "--duration", "20", "--json")
    assert result.exit_code == 0
    assert list(json.loads(result.stdout)["scenarios"]) == ["c-slot-bound"]


@pytest.mark.slow
def test_list_prints_a_line_for_each_shipped_scenario_and_published_policy() -> None:
    lines = simulate("--list").stdout.splitlines()

    names = [line.split()[0] for line in lines if line]
    assert names[: names.index("capacity:")] == ["scenario", *shipped_scenarios()]
    assert names[names.index("policy") :] == ["policy", *sorted(POLICIES)]
    about = "8 pods of 2 slots, 64 adapters alike"
    assert lines[4].split(maxsplit=3)[1:] == ["4", "6", about]
    [autoscaled] = [line for line in lines if line.startswith("rise-and-fall")]
    assert autoscaled.split()[1:3] == ["2", "-"]
    document = json.loads(simulate("--list", "--json").stdout)
    assert document["c-slot-bound"] == {"about": about, "rate": 4, "capacity": 6}
    assert document["rise-and-fall"]["capacity"] is None


def test_without_a_scenario_the_command_says_how_to_find_one() -> None:
    result = simulate()
    assert result.exit_code == 2
    assert "name a scenario or a YAML file; --list prints the scenarios" in result.stderr


def test_an_unknown_scenario_ends_the_command_with_the_known_ones() -> None:
    result = simulate("bursti")
    assert result.exit_code == 2
    assert "there is no scenario 'bursti'. Did you mean bursty? The scenarios are" in result.stderr


def test_the_shell_completes_the_names_of_scenarios() -> None:
    assert list(complete_scenario("b")) == ["b-zipf", "bursty"]


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--duration", "inf", "a number from 1 to 1,000,000"),
        ("--rate", "inf", "a number from 0.001 to 1,000,000"),
        ("--routers", "1000000", "a whole number from 1 to 100"),
    ],
)
def test_a_simulation_that_would_not_end_is_refused(flag: str, value: str, allowed: str) -> None:
    result = simulate("b-zipf", flag, value)
    assert result.exit_code == 2
    assert f"{flag}: must be {allowed}, not {value}" in result.stderr


def test_a_simulation_of_too_many_requests_is_refused() -> None:
    result = simulate("b-zipf", "--rate", "1000000", "--duration", "100000")
    assert result.exit_code == 2
    assert "b-zipf: 100,000,000,000 requests (--duration 100,000," in result.stderr
    assert "must be at most 50,000,000" in result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "sessions: {turns: [900, 900], first_prompt_tokens: [9, 9], growth_tokens: [9, 9], "
        "think_seconds: 1000000}",
        "bursts: {every_seconds: 0.1, requests: 100000}",
    ],
)
def test_sessions_before_the_trace_and_bursts_count_as_requests(tmp_path: Path, line: str) -> None:
    text = f"about: x\npods: 1\nslots: 1\nadapters: 1\nrate: 1\n{line}\n"
    (tmp_path / "endless.yaml").write_text(text)
    result = simulate("./endless.yaml")
    assert result.exit_code == 2
    assert "requests per second): must be at most 50,000,000" in result.stderr


def test_two_scenarios_with_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b-zipf.yaml").write_text("about: x\npods: 1\nslots: 1\nadapters: 1\nrate: 1\n")
    result = simulate("b-zipf", "./b-zipf.yaml")
    assert result.exit_code == 2
    assert "b-zipf and b-zipf.yaml have the same name, b-zipf" in result.stderr


# Load and recorded traffic

CHATS = """about: chats
pods: 2
slots: 4
adapters: 5
capacity: 10
rate: 1
sessions: {turns: [2, 4], first_prompt_tokens: [50, 99], growth_tokens: [99, 300], think_seconds: 3}
"""
MOONCAKE = "".join(
    f'{{"timestamp": {at * 500}, "input_length": 600, "output_length": 9, "hash_ids": [0, {at}]}}\n'
    for at in range(100)
)


@pytest.fixture
def chats(tmp_path: Path) -> str:
    (tmp_path / "chats.yaml").write_text(CHATS)
    (tmp_path / "conversation.jsonl").write_text(MOONCAKE)
    return "./chats.yaml"


def figures(*arguments: str) -> dict[str, Any]:
    result = simulate(*arguments, "--algorithm", "least-request", "--json")
    assert result.exit_code == 0, result.stderr
    return cast("dict[str, Any]", json.loads(result.stdout))


@pytest.mark.slow
def test_a_load_is_a_share_of_the_capacity_of_the_scenario(chats: str) -> None:
    document = figures(chats, "--load", "0.5", "--duration", "100")
    assert document["rates"] == {"chats": 5.0}
    found = document["scenarios"]["chats"]["least-request"]
    assert found["requests"] == pytest.approx(500, rel=0.2)


@pytest.mark.slow
def test_recorded_requests_are_replayed_at_a_load(chats: str) -> None:
    recorded = ("--trace", "conversation.jsonl")
    assert figures(chats, *recorded)["seconds"] == 49.5
    faster = figures(chats, *recorded, "--load", "0.5", "--sessions-base", "0.3")
    assert faster["seconds"] == pytest.approx(100 / 5)
    assert faster["scenarios"]["chats"]["least-request"]["requests"] == 100
    assert figures(chats, *recorded, "--duration", "10")["seconds"] == 9.5


@pytest.mark.slow
def test_chats_find_their_prefixes_on_a_pod_that_caches_them(chats: str, tmp_path: Path) -> None:
    (tmp_path / "cached.yaml").write_text(f"{CHATS}prefix_caching: true\n")
    played = ("--rate", "2", "--duration", "60")
    without = figures(chats, *played)["scenarios"]["chats"]["least-request"]
    cached = figures("./cached.yaml", *played)["scenarios"]["cached"]["least-request"]

    assert without["prefix_hits"] == 0.0
    assert 0.1 < cached["prefix_hits"] < 0.7
    assert cached["ttft"]["p50"] < without["ttft"]["p50"]


@pytest.mark.slow
def test_recorded_prefixes_are_found_too(chats: str, tmp_path: Path) -> None:
    (tmp_path / "cached.yaml").write_text(f"{CHATS}prefix_caching: true\n")
    # All begin with the same block of 512 tokens out of 600, on two pods and for five adapters.
    found = figures("./cached.yaml", "--trace", "conversation.jsonl")["scenarios"]["cached"]
    assert 0.7 < found["least-request"]["prefix_hits"] <= 512 / 600


@pytest.mark.slow
def test_the_figures_are_printed_with_what_they_mean(chats: str) -> None:
    printed = simulate(chats, "--duration", "20", "--algorithm", "random").stdout
    assert "end p99 tpot p99 good refused waits held longest hits" in " ".join(printed.split())
    assert "a first token within 2 s and at most 50 ms for each further token" in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--load", "0"), "--load: must be a number from 0.001 to 1,000, not 0"),
        (("--load", "1", "--rate", "1"), "--load: cannot be used together with --rate"),
        (("--sessions-zipf", "1"), "--sessions-zipf: has an effect only with --trace"),
        (("--trace-format", "azure"), "--trace-format: has an effect only with --trace"),
        (
            ("--trace", "conversation.jsonl", "--sessions-adapters", "0"),
            "--sessions-adapters: must be a whole number from 1 to 100,000, not 0",
        ),
        (
            ("--trace", "conversation.jsonl", "--trace-format", "azure"),
            "conversation.jsonl: no column ContextTokens, GeneratedTokens, TIMESTAMP",
        ),
        (
            ("--trace", "own.csv", "--sessions-adapters", "3"),
            "--sessions-adapters: has no effect: own.csv names the models",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    chats: str, arguments: tuple[str, ...], complaint: str
) -> None:
    Path("own.csv").write_text("timestamp,model,prompt_tokens,output_tokens\n1,sql,10,10\n")
    result = simulate(chats, *arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_load_needs_a_capacity() -> None:
    (Path("none.yaml")).write_text("about: x\npods: 1\nslots: 1\nadapters: 1\nrate: 1\n")
    result = simulate("./none.yaml", "--load", "0.85")
    assert result.exit_code == 2
    assert "none.yaml: capacity: is required for --load, which is a share of it" in result.stderr
    result = simulate("rise-and-fall", "--load", "0.85")
    assert result.stderr.startswith("lora-router: rise-and-fall: capacity: is required")


@pytest.mark.slow
def test_a_scenario_of_recorded_requests_needs_their_file(chats: str, tmp_path: Path) -> None:
    (tmp_path / "recorded.yaml").write_text(f"{CHATS}recorded: mooncake\n")
    result = simulate("./recorded.yaml")
    assert result.exit_code == 2
    assert "recorded.yaml: recorded: its requests are in a file of the format moon" in result.stderr
    found = figures("./recorded.yaml", "--trace", "conversation.jsonl", "--seed", "3")
    assert found["scenarios"]["recorded"]["least-request"]["requests"] == 100


def test_recorded_requests_of_another_format_are_refused(chats: str, tmp_path: Path) -> None:
    (tmp_path / "recorded.yaml").write_text(f"{CHATS}recorded: mooncake\n")
    (tmp_path / "azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,10,10\n"
    )
    result = simulate("./recorded.yaml", "--trace", "azure.csv", "--load", "0.85")

    assert (result.exit_code, result.stderr) == (
        2,
        "lora-router: recorded.yaml: recorded: it is for requests of the format mooncake, and "
        "azure.csv has the format azure\n",
    )


def test_the_heading_says_what_is_replayed(chats: str) -> None:
    Path("own.csv").write_text(
        "timestamp,model,prompt_tokens,output_tokens\n0,sql,9,9\n1,base,9,9\n2.3,sql,9,9\n"
    )
    printed = simulate(chats, "--trace", "own.csv", "--algorithm", "random").stdout

    assert printed.splitlines()[0].endswith("; replayed: own.csv, 1 adapter, 1.304 requests/s")


def test_scenarios_are_a_line_apart_and_nothing_comes_before_them(chats: str) -> None:
    arguments = (chats, "c-slot-bound", "--duration", "2", "--algorithm", "random")
    first, _, _, blank, second, *_ = simulate(*arguments).stdout.splitlines()

    assert first.startswith("chats: ")
    assert blank == ""
    assert second.startswith("c-slot-bound: ")
    assert simulate(*arguments, "--json").stderr == ""


# Several routers

PEERING = ("--routers", "2", "--peers", "peering")


def p99(*arguments: str) -> float:
    result = simulate(
        "b-zipf", "--algorithm", "lora-placement", "--duration", "20", "--json", *arguments
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)["scenarios"]["b-zipf"]["lora-placement"]["ttft"]["p99"]
    assert isinstance(found, float)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--peer-delay", "500"),
        ("--peer-jitter", "500"),
        ("--peer-loss", "0.5"),
        ("--peer-late", "0.5"),
        ("--partition", "10"),
    ],
)
def test_each_option_of_the_network_has_an_effect(options: tuple[str, str]) -> None:
    assert p99(*PEERING, *options) != p99(*PEERING)


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--peer-delay", "-1", "a number from 0 to 10,000"),
        ("--peer-jitter", "inf", "a number from 0 to 10,000"),
        ("--peer-loss", "1", "a number from 0 to 0.9"),
        ("--peer-late", "2", "a number from 0 to 0.9"),
        ("--partition", "nan", "a number from 0 to 1,000,000"),
    ],
)
def test_a_network_that_cannot_be_is_refused(flag: str, value: str, allowed: str) -> None:
    result = simulate("b-zipf", *PEERING, flag, value)
    assert result.exit_code == 2
    assert f"{flag}: must be {allowed}, not" in result.stderr


@pytest.mark.parametrize("given", [(), ("--routers", "2"), ("--peers", "peering")])
def test_an_option_of_the_network_needs_routers_with_peering(given: tuple[str, ...]) -> None:
    result = simulate("b-zipf", *given, "--peer-loss", "0.05")
    assert result.exit_code == 2
    assert "--peer-loss: has an effect only with --routers 2 or more and" in result.stderr


def test_unknown_knowledge_of_peers_is_refused() -> None:
    result = simulate("b-zipf", "--peers", "0.1")
    assert result.exit_code == 2
    assert "--peers: must be nothing, scrapes (of pods), or peering" in result.stderr


@pytest.mark.parametrize("lines", ["0,sql,100,10\n", "5,sql,100,10\n5,law,100,10\n"])
def test_requests_of_one_moment_have_no_rate(tmp_path: Path, lines: str) -> None:
    (tmp_path / "one.csv").write_text("timestamp,model,prompt_tokens,output_tokens\n" + lines)
    arguments = ("b-zipf", "--algorithm", "random", "--trace", "one.csv")

    found = msgspec.json.decode(simulate(*arguments, "--json").stdout)
    assert found["rates"] == {"b-zipf": None}
    assert ", -" in simulate(*arguments).stdout.splitlines()[0]
