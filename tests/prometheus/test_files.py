"""The files of the dashboards, of the alerts, and of the runbook agree with each other."""

import re
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest

from deploy.grafana import write_dashboards
from tests.prometheus.expressions import (
    DASHBOARDS,
    ROOT,
    alerts,
    choices,
    dashboard,
    panels,
    queries,
    rules,
)

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
ENTRIES = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]


def test_the_files_are_current() -> None:
    for path, text in write_dashboards.files().items():
        assert path.read_text() == text, f"run `make dashboards`: {path}"


def test_grafana_reads_every_field() -> None:
    """Its own types lose what they do not know."""
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    for name in DASHBOARDS:
        document = dashboard(name)
        read = Dashboard.from_json(document)
        assert write_dashboards.documented(read) == document


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_a_description_a_unit_and_a_place_of_their_own(name: str) -> None:
    document = dashboard(name)
    assert document["uid"] == f"lora-router-{name}"
    assert document["schemaVersion"] >= 41
    taken: list[tuple[str, dict[str, int]]] = []
    for panel in panels(name):
        title = panel["title"]
        assert panel["description"], title
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], title
        assert panel["datasource"]["uid"] == "${datasource}", title
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, title
        taken.append((title, panel["gridPos"]))
    assert len({panel["id"] for panel in document["panels"]}) == len(document["panels"])
    for (one, first), (other, second) in combinations(taken, 2):
        assert not overlap(first, second), (one, other)


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_links_to_the_others_to_the_runbook_and_to_the_routers_page(name: str) -> None:
    links = {each["title"]: each for each in dashboard(name)["links"]}
    assert links["Dashboards"]["tags"] == ["lora-router"]
    assert links["Runbook"]["url"] == "${runbook}"
    assert links["Router's page"]["url"] == "${page}"
    variables = {each["name"] for each in dashboard(name)["templating"]["list"]}
    assert {"datasource", "namespace", "job", "runbook", "page"} <= variables


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_in_a_query_is_one_of_the_dashboard(name: str) -> None:
    variables = {each["name"] for each in dashboard(name)["templating"]["list"]}
    for panel in panels(name):
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
            assert {"namespace", "job"} <= used <= variables, (panel["title"], target["expr"])


def test_panels_link_to_alerts_that_exist_and_every_alert_has_a_panel() -> None:
    linked = {
        link["url"].removeprefix("${runbook}#")
        for name in DASHBOARDS
        for panel in panels(name)
        for link in panel.get("links", ())
    }
    assert linked == {each["alert"].lower() for each in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(
    rule: dict[str, Any],
) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert timedelta(minutes=1) <= timedelta(minutes=int(rule["for"].removesuffix("m")))
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_the_runbook_has_an_entry_for_each_alert_and_for_no_other() -> None:
    assert [entry.split()[0] for entry in ENTRIES] == [each["alert"] for each in rules()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.split()[0])
def test_an_entry_says_what_it_means_what_to_look_at_and_what_to_do(entry: str) -> None:
    for part in ("**What it means.**", "**Look at.**", "**Do.**"):
        assert entry.count(part) == 1, part
    [looks] = re.findall(r"\*\*Look at\.\*\*(.*?)\*\*Do\.\*\*", entry, re.DOTALL)
    assert "panel" in looks or "`lora-router " in looks or "`/readyz`" in looks


def test_the_runbook_names_panels_that_exist() -> None:
    titles = {panel["title"] for name in DASHBOARDS for panel in panels(name)}
    named = {" ".join(name.split()) for name in re.findall(r"panel\s+\*([^*]+)\*", RUNBOOK)}
    assert named
    assert named <= titles


def test_every_metric_in_an_expression_is_documented() -> None:
    documented = set(re.findall(r"`(lora_router_\w+)", (ROOT / "docs/metrics.md").read_text()))
    for each in (*queries(), *choices(), *alerts()):
        assert each.metrics, each.place
        assert each.metrics <= documented, each.place
