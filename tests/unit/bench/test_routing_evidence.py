"""The routing bench: what it runs, what it keeps, and the tables that it prints."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import code_versions, routing_evidence, routing_runs
from bench.code_versions import code_version
from bench.routing_evidence import CAPABLE, PUBLISHED, Wanted, _what_was_run
from bench.routing_rates import RateFile, measure_rates, rate_table
from bench.routing_runs import Run, RunFile, make_runs
from bench.routing_settings import Setting, play, setting_of
from bench.routing_tables import FIGURES, OURS, table
from lora_router.simulator.no_value import NO_VALUE
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


def the_code(_policy: str) -> str:
    return "code"


def other_code(_policy: str) -> str:
    return "other code"


def evidence(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["routing_evidence", *arguments])
    routing_evidence.main()


def test_help_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        evidence(monkeypatch, "--help")
    assert ended.value.code == 0
    assert "default: all at 85%, and" in capsys.readouterr().out.replace("\n", " ")


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


class TestTheVersionOfTheCode:
    @pytest.fixture
    def changed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        """A copy of the sources in which ``lora-placement`` has another term."""
        copy = tmp_path / "src"
        shutil.copytree(code_versions._SOURCES, copy, ignore=shutil.ignore_patterns("*.pyc"))
        with (copy / "lora_router/routing/terms/slot.py").open("a") as file:
            file.write("# A change.\n")
        code_version.cache_clear()
        monkeypatch.setattr(code_versions, "_SOURCES", copy)
        yield
        code_version.cache_clear()

    @pytest.mark.slow
    def test_it_is_one_of_all_that_a_policy_imports(self) -> None:
        assert code_version("hold") != code_version("lora-placement")
        assert len(code_version("hold")) == 12

    @pytest.mark.slow
    def test_a_change_of_one_policy_leaves_the_runs_of_others(
        self, request: pytest.FixtureRequest
    ) -> None:
        names = ("hold", "shuffle-shard", "lora-placement")
        before = [code_version(name) for name in names]

        request.getfixturevalue("changed")

        same = [code_version(name) == version for name, version in zip(names, before, strict=True)]
        assert same == [True, True, False]


class TestTheFileOfRuns:
    def test_a_run_is_found_again_with_its_figures(self, tiny: Setting, tmp_path: Path) -> None:
        path, run = tmp_path / "runs" / "runs.jsonl", run_of(tiny)
        summary = play(tiny, run.rate, run.policy, run.seed)
        RunFile(path, the_code).add(run, summary)

        assert RunFile(path, the_code).get(run) == summary
        assert RunFile(path, other_code).get(run) is None
        assert RunFile(path, the_code).get(run_of(tiny, seed=2)) is None
        assert RunFile(path, the_code).get(run_of(tiny, policy="hold")) is None
        assert json.loads(path.read_text())["scenario"] == "tiny"

    def test_an_interrupted_line_is_dropped_and_another_wrong_line_is_named(
        self, tiny: Setting, tmp_path: Path
    ) -> None:
        path, run = tmp_path / "runs.jsonl", run_of(tiny)
        RunFile(path, the_code).add(run, play(tiny, run.rate, run.policy, run.seed))
        whole = path.read_text()
        path.write_text(whole + '{"version": "co')

        file = RunFile(path, the_code)
        found = file.get(run)
        assert found is not None
        file.add(run, found)
        assert path.read_text() == whole * 2

        path.write_text("no run\n" + whole)
        with pytest.raises(ValueError, match=r"runs.jsonl:1: is not a run"):
            RunFile(path, the_code)

    @pytest.mark.slow
    def test_only_runs_that_the_file_lacks_are_made(
        self, tiny: Setting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = RunFile(tmp_path / "runs.jsonl", the_code)
        wanted = [run_of(tiny, seed=seed) for seed in (1, 2)]

        make_runs(file, wanted[:1], processes=1)
        make_runs(file, wanted, processes=2)
        make_runs(file, wanted, processes=2)

        assert all(file.get(run) for run in wanted)
        assert capsys.readouterr().err.count("1 of 1") == 2


def test_all_policies_run_near_the_capacity_and_the_capable_ones_elsewhere(tiny: Setting) -> None:
    wanted = Wanted([tiny], None, [0.6, 0.85], [1], 1, {"tiny": 4.0})

    first, *_, last = runs = wanted.runs()

    assert (first.policy, first.load) == (OURS, 0.85)
    assert first.rate == pytest.approx(3.4)
    assert (last.load, last.policy) == (0.85, PUBLISHED[-2])
    assert len(runs) == len({*PUBLISHED, OURS}) + len(CAPABLE)


def test_what_was_run_is_said_also_if_it_is_not_all(tiny: Setting) -> None:
    wanted = Wanted([tiny], ["hold", "cost"], [0.85], [1, 2], 1, {"tiny": 4.0})
    summary = play(tiny, 2.0, "hold", 1)

    line = _what_was_run(wanted, 0.85, {"tiny": {"hold": summary}})

    assert line == "At 85% were run, with the seeds 1, 2: `hold`.\n"


class TestTables:
    @pytest.fixture
    def found(self, tiny: Setting) -> dict[str, dict[str, Summary]]:
        policies = ("least-request", "lora-placement")
        return {"tiny": {name: play(tiny, 2.0, name, 1) for name in policies}}

    @pytest.mark.slow
    def test_the_best_is_marked_and_ours_is_beside_the_best_other(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        best, ours = (found["tiny"][name].ttft["p99"] for name in found["tiny"])
        text = table(FIGURES["ttft"], 0.85, ["tiny"], [*found["tiny"]], found)

        heading, _, heads, _, row = text.splitlines()
        assert heading == "#### p99 of the time to first token, seconds, at 85%"
        assert heads.endswith("| `lora-placement` | best other | ratio |")
        assert f"**{min(best, ours):.2f}**" in row
        assert row.endswith(f"| {best:.2f} `least-request` | {ours / best:.2f} |")

    @pytest.mark.slow
    def test_shares_are_compared_in_points_and_refusals_are_not(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        policies = [*found["tiny"]]

        assert "points |" in table(FIGURES["good"], 0.6, ["tiny"], policies, found)
        assert "ratio" not in table(FIGURES["refused"], 0.6, ["tiny"], policies, found)

    @pytest.mark.slow
    def test_a_run_that_was_not_made_is_a_dash(self, found: dict[str, dict[str, Summary]]) -> None:
        row = table(FIGURES["loads"], 0.6, ["tiny", "other"], ["lora-placement"], found)

        assert row.splitlines()[-1] == "| `other` | - |"

    @pytest.mark.slow
    def test_a_figure_without_a_value_is_a_dash_and_not_the_best(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        worse = replace(found["tiny"]["least-request"], worst_adapter_p99=7.0)
        without = {"tiny": {OURS: replace(worse, worst_adapter_p99=NO_VALUE), "hold": worse}}

        row = table(FIGURES["worst"], 0.6, ["tiny"], [OURS, "hold"], without).splitlines()[-1]

        assert row == "| `tiny` | - | 7.00 | - | - |"

    @pytest.mark.slow
    def test_ours_is_compared_also_with_policies_that_have_no_column(
        self, found: dict[str, dict[str, Summary]]
    ) -> None:
        text = table(FIGURES["end-to-end"], 0.6, ["tiny", "other"], ["lora-placement"], found)

        *_, row, missing = text.splitlines()
        assert "`least-request`" in row
        assert missing == "| `other` | - | - | - |"

    @pytest.mark.slow
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
    RateFile(path, [1, 2], the_code).add(tiny, "hold", 7.5)

    assert RateFile(path, [1, 2], the_code).get(tiny, "hold") == 7.5
    assert RateFile(path, [3], the_code).get(tiny, "hold") is None
    assert RateFile(path, [1, 2], other_code).get(tiny, "hold") is None


@pytest.mark.slow
def test_the_highest_rate_of_recorded_requests_is_found(tiny: Setting, tmp_path: Path) -> None:
    trace = tmp_path / "recorded.csv"
    lines = [f"{number},adapter-{number % 8},100,400\n" for number in range(20)]
    trace.write_text("timestamp,model,prompt_tokens,output_tokens\n" + "".join(lines))
    file = RateFile(tmp_path / "rates.jsonl", [1], the_code)

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

    @pytest.mark.slow
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
        assert first.count("| `tiny` |") == first.count("#### ") == 2

    @pytest.mark.slow
    def test_without_scenarios_it_takes_all_that_need_no_file(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def measure(*_: object) -> dict[str, dict[str, float]]:
            return {}

        monkeypatch.setattr(routing_evidence, "measure_rates", measure)
        names = [
            setting_of(name, trace=None, aside=False, seconds=None).scenario.name
            for name in routing_evidence._default_scenarios(every=True)
        ]
        given = [text for name in names for text in ("--capacity", f"{name}=1")]
        runs = ("--runs", str(tmp_path / "runs.jsonl"), "--tables-only", "--every-scenario")
        evidence(monkeypatch, *runs, *given)

        rows = capsys.readouterr().out
        assert "| `b-zipf` |" in rows
        assert "| `chats-24` |" in rows
        assert "mooncake" not in rows

    def test_tables_only_runs_nothing(
        self, call: Callable[..., None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        call("--policies", "hold", "--figures", "ttft", "--tables-only")

        *_, row, _, what_was_run = capsys.readouterr().out.rstrip().splitlines()
        assert row == "| `tiny` | - |"
        assert what_was_run.endswith(": none.")

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
