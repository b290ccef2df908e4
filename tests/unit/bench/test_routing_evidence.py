"""The routing bench: what it runs, what it keeps, and the tables that it prints."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import routing_evidence, routing_runs
from bench.routing_rates import RateFile, measure_rates, rate_table
from bench.routing_runs import Run, RunFile, make_runs
from bench.routing_settings import Setting, code_version, play, setting_of
from bench.routing_tables import FIGURES, short_table, table
from lora_router.simulator.summary import Summary

TINY = """
about: "2 pods of 2 slots, 4 adapters"
pods: 2
slots: 2
adapters: 4
rate: 4
capacity: 4
seconds: 20
"""
TRACE = "timestamp,model,prompt_tokens,output_tokens\n" + "".join(
    f"{number / 2},adapter-{number % 3},100,10\n" for number in range(20)
)


@pytest.fixture
def tiny(tmp_path: Path) -> Setting:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return setting_of(str(path), trace=None, aside=False, seconds=None)


def run_of(setting: Setting, policy: str = "random", seed: int = 1, load: float = 0.5) -> Run:
    return Run(setting, load, load * 4.0, policy, seed)


def evidence(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["routing_evidence", *arguments])
    routing_evidence.main()


class TestSettings:
    def test_recorded_requests_are_played_at_the_rate_that_is_asked_for(
        self, tiny: Setting, tmp_path: Path
    ) -> None:
        trace = tmp_path / "recorded.csv"
        trace.write_text(TRACE)
        setting = Setting(tiny.scenario, trace)

        assert setting.name == "tiny, recorded"
        assert setting.traffic(4.0).rate == pytest.approx(4.0)
        assert setting.traffic(4.0).seconds == pytest.approx(5.0)
        assert play(setting, 4.0, "least-request", 1).requests == 20

    def test_what_decides_the_outcome_decides_the_digest(
        self, tiny: Setting, tmp_path: Path
    ) -> None:
        trace = tmp_path / "recorded.csv"
        trace.write_text(TRACE)
        others = [
            Setting(tiny.scenario, aside=True),
            Setting(tiny.scenario, seconds=10.0),
            Setting(tiny.scenario, trace),
        ]

        assert len({setting.content for setting in (tiny, *others)}) == 4
        assert tiny.content == Setting(tiny.scenario).content

    def test_loads_aside_stall_no_batch(self, tiny: Setting) -> None:
        assert tiny.played().keys.loads_block
        assert not Setting(tiny.scenario, aside=True).played().keys.loads_block

    def test_the_version_of_the_code_stays_while_the_code_does(self) -> None:
        assert code_version() == code_version()
        assert len(code_version()) == 12


class TestTheFileOfRuns:
    def test_a_run_is_found_again_with_its_figures(self, tiny: Setting, tmp_path: Path) -> None:
        path, run = tmp_path / "runs" / "runs.jsonl", run_of(tiny)
        summary = play(tiny, run.rate, run.policy, run.seed)
        RunFile(path, "code").add(run, summary)

        assert RunFile(path, "code").get(run) == summary
        assert RunFile(path, "other code").get(run) is None
        assert RunFile(path, "code").get(run_of(tiny, seed=2)) is None
        assert RunFile(path, "code").get(run_of(tiny, policy="hold")) is None
        assert json.loads(path.read_text())["scenario"] == "tiny"

    def test_an_interrupted_line_is_dropped_and_another_wrong_line_is_named(
        self, tiny: Setting, tmp_path: Path
    ) -> None:
        path, run = tmp_path / "runs.jsonl", run_of(tiny)
        RunFile(path, "code").add(run, play(tiny, run.rate, run.policy, run.seed))
        whole = path.read_text()
        path.write_text(whole + '{"version": "co')

        file = RunFile(path, "code")
        found = file.get(run)
        assert found is not None
        file.add(run, found)
        assert path.read_text() == whole * 2

        path.write_text("no run\n" + whole)
        with pytest.raises(ValueError, match=r"runs.jsonl:1: is not a run"):
            RunFile(path, "code")

    def test_only_runs_that_the_file_lacks_are_made(
        self, tiny: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = RunFile(tmp_path / "runs.jsonl", "code")
        wanted = [run_of(tiny, seed=seed) for seed in (1, 2)]

        make_runs(file, wanted[:1], processes=1)
        make_runs(file, wanted, processes=2)
        make_runs(file, wanted, processes=2)

        assert all(file.get(run) for run in wanted)
        assert capsys.readouterr().err.count("1 of 1") == 2


class TestTables:
    @pytest.fixture
    def found(self, tiny: Setting) -> dict[str, dict[str, Summary]]:
        policies = ("least-request", "lora-placement")
        return {"tiny": {name: play(tiny, 2.0, name, 1) for name in policies}}

    def test_the_best_is_marked_and_ours_is_beside_the_best_other(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        best, ours = (found["tiny"][name].ttft["p99"] for name in found["tiny"])
        text = table(FIGURES["ttft"], 0.85, ["tiny"], [*found["tiny"]], found)

        heading, _, heads, _, row = text.splitlines()
        assert heading == "### p99 of the time to first token, seconds, at 85%"
        assert heads.endswith("| `lora-placement` | ratio to the best other |")
        assert f"**{min(best, ours):.2f}**" in row
        assert row.endswith(f"| {ours / best:.2f} |")

    def test_shares_are_compared_in_points_and_refusals_are_not(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        policies = [*found["tiny"]]

        assert "points |" in table(FIGURES["good"], 0.6, ["tiny"], policies, found)
        assert "ratio" not in table(FIGURES["refused"], 0.6, ["tiny"], policies, found)

    def test_a_run_that_was_not_made_is_a_dash(self, found: dict[str, dict[str, Summary]]) -> None:
        row = table(FIGURES["loads"], 0.6, ["tiny", "other"], ["lora-placement"], found)

        assert row.splitlines()[-1] == "| `other` | - |"

    def test_a_short_table_has_ours_and_the_best_other(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        text = short_table(FIGURES["end-to-end"], 0.6, ["tiny", "other"], [*found["tiny"]], found)

        *_, row, missing = text.splitlines()
        assert row.split("|")[4].strip() == "`least-request`"
        assert missing == "| `other` | - | - | - | - |"

    def test_where_all_are_the_same_none_is_marked(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        assert "**" not in table(FIGURES["hits"], 0.6, ["tiny"], [*found["tiny"]], found)

    def test_rates_are_compared_too(self) -> None:
        rates = {"tiny": {"hold": 2.0, "lora-placement": 3.0}}

        row = rate_table(rates, ["hold", "lora-placement"], "lora-placement").splitlines()[-1]

        assert row == "| `tiny` | 2.0 | **3.0** | 1.50 |"


def test_rates_are_found_again_for_the_same_seeds(tiny: Setting, tmp_path: Path) -> None:
    path = tmp_path / "rates.jsonl"
    RateFile(path, "code", [1, 2]).add(tiny, "hold", 7.5)

    assert RateFile(path, "code", [1, 2]).get(tiny, "hold") == 7.5
    assert RateFile(path, "code", [3]).get(tiny, "hold") is None
    assert RateFile(path, "other", [1, 2]).get(tiny, "hold") is None


def test_the_highest_rate_of_recorded_requests_is_found(tiny: Setting, tmp_path: Path) -> None:
    trace = tmp_path / "recorded.csv"
    lines = [f"{number},adapter-{number % 8},100,400\n" for number in range(20)]
    trace.write_text("timestamp,model,prompt_tokens,output_tokens\n" + "".join(lines))
    file = RateFile(tmp_path / "rates.jsonl", "code", [1])

    rates = measure_rates(file, [Setting(tiny.scenario, trace)], ["hold"], [1], processes=1)

    assert 0.1 < rates["tiny, recorded"]["hold"] < 100.0


class TestTheCommand:
    @pytest.fixture
    def call(
        self, tiny: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., None]:
        def call(*arguments: str, scenario: str = tiny.scenario.where) -> None:
            few = ("--seeds", "1", "--loads", "0.5", "--processes", "1")
            runs = ("--runs", str(tmp_path / "runs.jsonl"))
            evidence(monkeypatch, scenario, *few, *runs, *arguments)

        return call

    def test_it_prints_a_table_for_each_figure_and_runs_nothing_twice(
        self,
        call: Callable[..., None],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        call("--policies", "hold,lora-placement", "--figures", "ttft,good")
        first = capsys.readouterr().out
        monkeypatch.setattr(routing_runs, "ProcessPoolExecutor", None)  # It would be an error.
        call("--policies", "hold,lora-placement", "--figures", "ttft,good")

        assert capsys.readouterr().out == first
        assert first.count("| `tiny` |") == first.count("### ") == 2

    def test_without_scenarios_it_takes_all_that_need_no_file(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def measure(*_: object) -> dict[str, dict[str, float]]:
            return {}

        monkeypatch.setattr(routing_evidence, "measure_rates", measure)
        names = [
            setting_of(name, trace=None, aside=False, seconds=None).scenario.name
            for name in routing_evidence._default_scenarios()
        ]
        given = [text for name in names for text in ("--capacity", f"{name}=1")]
        runs = ("--runs", str(tmp_path / "runs.jsonl"), "--tables-only", "--figures", "ttft")
        evidence(monkeypatch, *runs, *given)

        rows = capsys.readouterr().out
        assert "| `b-zipf` |" in rows
        assert "| `chats-24` |" in rows
        assert "mooncake" not in rows

    def test_tables_only_runs_nothing(
        self, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        call("--policies", "hold", "--figures", "ttft", "--tables-only")

        assert capsys.readouterr().out.splitlines()[-2] == "| `tiny` | - |"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--policies", "best"], "unknown algorithm 'best'"),
            (["--figures", "speed"], "unknown figure 'speed'"),
            (["--loads", "0"], "must be shares above 0"),
            (["--capacity", "tiny"], "--capacity tiny: must be SCENARIO=VALUE"),
        ],
    )
    def test_what_it_cannot_do_is_said(
        self,
        call: Callable[..., None],
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        with pytest.raises(SystemExit):
            call(*arguments)

        assert message in capsys.readouterr().err
