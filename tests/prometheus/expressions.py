"""The expressions of the dashboards and of the alerts."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana.panels import filled

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy/grafana"
DASHBOARDS = ("overview", "adapters", "pods", "router")
_METRIC = re.compile(r"\blora_router_\w+")
_PARTS = re.compile(r"_(bucket|sum|count)$")


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression, and where it is from."""

    place: str
    """The dashboard and the panel, or the name of the alert."""
    text: str
    is_instant: bool = False

    @property
    def metrics(self) -> set[str]:
        """The router's metrics in it, without the ends of the names of a histogram's series."""
        return {_PARTS.sub("", name) for name in _METRIC.findall(self.text)}

    def filled(self, seconds: int) -> str:
        """Return it as Grafana asks it, with all values chosen and rates over so many seconds."""
        return filled(self.text, seconds)


def dashboard(name: str) -> dict[str, Any]:
    """Return a dashboard's document."""
    document: dict[str, Any] = json.loads((GRAFANA / f"{name}.json").read_text())
    return document


def panels(name: str) -> list[dict[str, Any]]:
    """Return the panels of a dashboard, without the rows."""
    return [each for each in dashboard(name)["panels"] if each["type"] != "row"]


def queries() -> list[Expression]:
    """Return the expressions of all panels."""
    return [
        Expression(f"{name}: {panel['title']}", target["expr"], target.get("instant", False))
        for name in DASHBOARDS
        for panel in panels(name)
        for target in panel["targets"]
    ]


def choices() -> list[Expression]:
    """Return the series whose labels are the choices of the dashboards' variables."""
    found = []
    for name in DASHBOARDS:
        for variable in dashboard(name)["templating"]["list"]:
            if variable["type"] == "query":
                text = variable["query"]["query"]
                series = text.removeprefix("label_values(").rpartition(",")[0]
                found.append(Expression(f"{name}: variable {variable['name']}", series))
    return found


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    groups = yaml.safe_load((GRAFANA / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[Expression]:
    """Return the expressions of the alerts."""
    return [Expression(rule["alert"], rule["expr"]) for rule in rules()]
