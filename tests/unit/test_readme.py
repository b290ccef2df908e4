"""The README says what is true."""

import re
from pathlib import Path

from lora_router.fleet.fleet import Fleet
from lora_router.routing.registry import installed
from lora_router.telemetry.metrics import Telemetry
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_table_of_settings_is_up_to_date() -> None:
    module = load_script(ROOT / "docs/write_readme.py")

    assert module.with_settings(README) == README, "run `make readme`"


def test_every_algorithm_is_described() -> None:
    for name in installed():
        assert f"| `{name}` |" in README


def test_every_metric_that_is_named_exists_and_the_other_way_round() -> None:
    named = {name.removesuffix("_total") for name in re.findall(r"`(lora_router_\w+)", README)}
    fleet = Fleet()
    page = Telemetry(fleet).page().decode()
    exported = set(re.findall(r"^# TYPE (lora_router_\w+)", page, re.MULTILINE))
    # These are added by the app, which knows the transport and the discovery.
    exported |= {
        "lora_router_open_streams",
        "lora_router_held_requests",
        "lora_router_pods_age_seconds",
    }
    documented_elsewhere = {"lora_router_build_info", "lora_router_scrape_seconds"}

    exported = {name.removesuffix("_total").removesuffix("_created") for name in exported}
    assert named == exported - documented_elsewhere


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_no_file_names_a_package_index() -> None:
    for path in [*ROOT.glob("requirements/*"), ROOT / "pyproject.toml", ROOT / "Makefile"]:
        assert "://" not in path.read_text(), path
