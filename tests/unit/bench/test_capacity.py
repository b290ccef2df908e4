"""The highest rate of a scenario, and the command that writes it into the scenario's file."""

import sys
from functools import partial
from pathlib import Path

import pytest

from bench import capacity
from bench.highest_rate import highest_rate
from lora_router.simulator.scenario import read_scenario
from lora_router.simulator.traffic import GeneratedTraffic

pytestmark = pytest.mark.slow

# A pod computes 20 prompts of 500 tokens in a second, each of them alone in its step.
SMALL = """about: one small pod
pods: 1
slots: 1
adapters: 1
rate: 10
prompt_tokens: [499, 500]
output_tokens: [1, 1]
step_ms: 0.01
step_ms_per_request: 0
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.mark.parametrize("limit", ["good", "p99"])
def test_the_highest_rate_is_just_below_what_the_pods_can_compute(
    scenario: Path, limit: str
) -> None:
    read = read_scenario(scenario)
    traffic = partial(GeneratedTraffic, read.workload, seconds=60.0)

    found = highest_rate(read, "least-request", [1], limit, traffic)

    assert 14.0 < found < 21.0


def test_a_strict_limit_allows_a_lower_rate(scenario: Path) -> None:
    scenario.write_text(SMALL + "goodput: {ttft_seconds: 0.1}\n")
    read = read_scenario(scenario)
    traffic = partial(GeneratedTraffic, read.workload, seconds=60.0)

    assert highest_rate(read, "least-request", [1], "good", traffic) < 10.0


def test_recorded_requests_need_their_file(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario.write_text(SMALL + "recorded: azure\n")
    monkeypatch.setattr(sys, "argv", ["capacity", str(scenario)])
    with pytest.raises(SystemExit, match="recorded: its requests are in a file of the format azu"):
        capacity.main()


@pytest.mark.parametrize("before", ["", "capacity: 3\nseconds: 20\n"])
def test_the_command_writes_the_capacity_into_the_file(
    scenario: Path,
    before: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scenario.write_text(SMALL + before)
    options = ["--policies", "random", "--seeds", "1", "--duration", "20", "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["capacity", str(scenario), *options, "--write"])

    capacity.main()

    written = read_scenario(scenario)
    assert 10.0 < (written.keys.capacity or 0.0) < 25.0
    assert written.keys.seconds == (20.0 if before else 300.0)
    assert "| `small` | **" in capsys.readouterr().out
