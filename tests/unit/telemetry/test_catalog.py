"""The descriptions of metrics, and docs/metrics.md, which is made from them."""

import re
from pathlib import Path

import pytest

from lora_router.telemetry.catalog import CATALOG, METRICS
from lora_router.telemetry.described import unit_of
from tests.scripts import load_script

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src/lora_router"


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs/metrics.md").read_text()

    assert load_script(ROOT / "docs/write_metrics.py").with_tables(page) == page, "make metrics"


def test_every_metric_in_the_code_is_described_and_the_other_way_round() -> None:
    described = {name.removesuffix("_total") for name in METRICS}
    used = {
        name.removesuffix("_total").removesuffix("_count")
        for file in SOURCE.rglob("*.py")
        if file.name != "catalog.py"
        for name in re.findall(r'"(lora_router_[a-z_]+)"', file.read_text())
    }

    assert used & described == described
    others = {"lora_router_labels", "lora_router_pods", "lora_router_envoy"}
    assert {name for name in used - described if not name.endswith("_")} <= others


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"lora_router(_[a-z]+)+", name)
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.kind != "histogram" or unit_of(name), name
        assert metric.meaning.endswith("."), name
        assert "le" not in metric.labels, name
        assert not metric.renamed or metric.renamed in METRICS, name


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("lora_router_hold_seconds", "seconds"),
        ("lora_router_peer_bytes_total", "bytes"),
        ("lora_router_requests_total", ""),
    ],
)
def test_a_name_states_the_unit(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_families_are_made_from_descriptions() -> None:
    counter = CATALOG.counter("lora_router_spills_total")
    counter.add_metric(["base"], 3)

    assert counter.name == "lora_router_spills"
    assert counter.documentation == METRICS["lora_router_spills_total"].meaning
    assert counter.samples[0].labels == {"base_model": "base"}
