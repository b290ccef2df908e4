"""What the chart says of itself: its README, its file of defaults, and what Artifact Hub shows."""

import re

import yaml

from lora_router import __version__
from tests.chart import CHART
from tests.scripts import load_script

CATEGORIES = {
    "ai-machine-learning",
    "database",
    "integration-delivery",
    "monitoring-logging",
    "networking",
    "security",
    "skip-prediction",
    "storage",
    "streaming-messaging",
}
CHANGES = {"added", "changed", "deprecated", "removed", "fixed", "security"}


def test_the_chart_is_of_the_version_that_it_installs() -> None:
    metadata = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert metadata["appVersion"] == metadata["version"] == __version__


def test_the_readme_has_every_value_with_its_default() -> None:
    module = load_script(CHART.parent / "write_values.py")
    page = (CHART / "README.md").read_text()

    assert module.with_table(page) == page, "run `make chart-readme`"
    assert "| `replicas` | `2` | Number of routers." in page
    assert all(row.description for row in module.values())


def test_the_templates_know_the_defaults_of_the_values() -> None:
    module = load_script(CHART.parent / "write_values.py")
    file = CHART / "files" / "defaults.yaml"

    assert module.defaults() == file.read_text(), "run `make chart-readme`"
    defaults = yaml.safe_load(file.read_text())
    assert defaults["gateway.sidecar.port"] == 10080
    # Null means that the target is not used. Without all of the targets, each has its default.
    assert "autoscaling.targets.cpu" not in defaults
    assert defaults["autoscaling.targets"]["cpu"] == "700m"


def test_links_of_the_readme_lead_to_files() -> None:
    targets = re.findall(r"\]\((\.\.[^)#]+)", (CHART / "README.md").read_text())
    assert targets
    for target in targets:
        assert (CHART / target).is_file(), target


def test_artifact_hub_understands_the_annotations() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]

    assert all(isinstance(value, str) for value in annotations.values())
    assert annotations["artifacthub.io/category"] in CATEGORIES
    assert annotations["artifacthub.io/prerelease"] in {"true", "false"}
    changes = yaml.safe_load(annotations["artifacthub.io/changes"])
    assert {change["kind"] for change in changes} <= CHANGES
    assert all(change["description"] for change in changes)
