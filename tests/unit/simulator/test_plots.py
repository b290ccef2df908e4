"""``lora-router simulate --plot``: the files, and errors."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lora_router.simulator.command import SimulateOptions, simulate_command
from lora_router.simulator.plot_records import PlotRecords, two_to_compare
from lora_router.simulator.plots import PlotError, check_can_plot, write_plots

pytestmark = pytest.mark.slow

SCENARIO = "about: 3 pods, $9 & <more>\npods: 3\nslots: [2]\nadapters: 8\nzipf: 1.0\nrate: 4\n"
ALGORITHMS = ("least-request", "lora-affinity", "lora-placement")


def simulate(
    directory: Path,
    plots: Path,
    algorithms: tuple[str, ...] = ALGORITHMS,
    *,
    threshold: float = 0.999,
    trace: Path | None = None,
) -> Path:
    scenario = directory / "small.yaml"
    scenario.write_text(SCENARIO)
    simulate_command(
        SimulateOptions(
            scenarios=(str(scenario),),
            algorithms=algorithms,
            seeds=(1, 2),
            seconds=20.0,
            trace=trace,
            lora_affinity_threshold=threshold,
            plot=plots,
        )
    )
    return plots


def texts(file: Path) -> list[str]:
    """Return the texts of a plot."""
    root = ElementTree.parse(file).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plots")
    return simulate(directory, directory / "new" / "folder")


def test_three_plots_are_written_for_a_scenario(plots: Path) -> None:
    names = sorted(path.name for path in plots.iterdir())
    assert names == ["small-slots.svg", "small-threshold.svg", "small-ttft.svg"]


def test_the_times_of_each_algorithm_have_a_line_and_units(plots: Path) -> None:
    written = texts(plots / "small-ttft.svg")

    assert "time to first token (s), logarithmic" in written
    assert "requests that wait longer (%)" in written
    for name in ALGORITHMS:
        assert [line for line in written if line.startswith(f"{name} ") and line.endswith(" s")]


def test_the_sweep_includes_the_threshold_in_use(plots: Path, tmp_path: Path) -> None:
    written = texts(plots / "small-threshold.svg")
    assert "AIBRIX_LORA_AFFINITY_THRESHOLD of lora-affinity (probability)" in written
    assert {"p50", "p99", "0.5", "0.999", "adapter loads"} <= set(written)
    assert "0.6" not in written

    other = simulate(tmp_path, tmp_path, ("lora-affinity",), threshold=0.6)
    assert "0.6" in texts(other / "small-threshold.svg")


def test_slots_are_drawn_of_one_that_scatters_and_one_that_places(plots: Path) -> None:
    written = texts(plots / "small-slots.svg")

    titles = [line.partition(":")[0] for line in written if "loads for 1,000 requests" in line]
    assert titles == ["least-request", "lora-placement"]
    assert {"time (s)", "slots of pod", "waiting on a pod for a slot", "waiting in the router"} <= (
        set(written)
    )
    assert "<image" in (plots / "small-slots.svg").read_text()


def test_names_are_written_as_they_are(plots: Path) -> None:
    assert "small: 3 pods, $9 & <more>, 4 requests/s" in texts(plots / "small-ttft.svg")


def test_the_same_runs_give_the_same_bytes_whatever_the_users_style(
    plots: Path, tmp_path: Path
) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "black"}):
        again = simulate(tmp_path, tmp_path / "again")

    for path in plots.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_the_background_is_white_and_there_is_no_date(plots: Path) -> None:
    for path in plots.iterdir():
        assert 'style="fill: #ffffff"' in path.read_text()
        assert "<dc:date>" not in path.read_text()


def test_without_lora_affinity_there_is_no_threshold(tmp_path: Path) -> None:
    simulate(tmp_path, tmp_path, ("random",))
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == [
        "small-slots.svg",
        "small-ttft.svg",
    ]


def test_a_single_request_with_a_long_name_can_be_drawn(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    name = "an-adapter-whose-name-is-too-long-for-a-legend"
    trace.write_text(f"timestamp,model,prompt_tokens,output_tokens\n0,{name},10,20\n")

    plots = simulate(tmp_path, tmp_path / "plots", ("lora-affinity",), trace=trace)
    assert "an-adapter-whose-name-is-too-…" in texts(plots / "small-slots.svg")


@pytest.mark.parametrize(
    ("algorithms", "drawn"),
    [
        (("random",), ("random",)),
        (("mine", "yours", "theirs"), ("mine", "theirs")),
        (("lora-placement", "mine"), ("mine", "lora-placement")),
        (("lora-placement", "lora-affinity"), ("lora-affinity", "lora-placement")),
        (("lora-affinity", "random", "least-request"), ("least-request", "lora-affinity")),
    ],
)
def test_the_two_algorithms_that_differ_most_are_compared(
    algorithms: tuple[str, ...], drawn: tuple[str, ...]
) -> None:
    assert two_to_compare(algorithms) == drawn


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(PlotError, match=r"pip install 'lora-router\[plot\]'"):
        check_can_plot(tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_a_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlotError, match="file: cannot be written: File exists"):
        check_can_plot(tmp_path / "file")


def test_a_directory_that_was_removed_meanwhile_is_named(tmp_path: Path) -> None:
    records = PlotRecords("small", "nothing happened", 0.5)
    with pytest.raises(PlotError, match=r"small-ttft\.svg: cannot be written: No such file"):
        write_plots(tmp_path / "gone", records)
