"""What a dashboard consists of, as plain records. ``write_dashboards`` turns them into JSON."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["stat", "timeseries", "table"]
WIDTH = 24
"""Columns of Grafana's grid."""
ROUTERS = 'namespace=~"$namespace", job=~"$job"'
"""Selects the routers. ``$routers`` in an expression stands for it."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a panel."""

    expr: str
    """PromQL, with the variables of the dashboard."""
    legend: str = ""
    """Name of each series: Grafana's template, such as ``{{pod}}``. In a table: the column."""
    unit: str = ""
    """Unit of the column of a table. Default: that of the panel."""

    @property
    def text(self) -> str:
        """The expression as Grafana gets it."""
        return self.expr.replace("$routers", ROUTERS)

    def filled(self, seconds: int) -> str:
        """Return it as Grafana asks it, with all values chosen and rates over so many seconds."""
        return filled(self.text, seconds)


@dataclass(frozen=True, slots=True)
class Threshold:
    """From this value on, a panel has this colour."""

    value: float
    color: Literal["orange", "red", "green"]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: what it shows, and for whom."""

    title: str
    description: str
    """What the values mean, and what is normal."""
    queries: tuple[Query, ...]
    unit: str = "short"
    """A unit of Grafana, such as ``s``, ``reqps``, ``percentunit``, ``bytes``."""
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    thresholds: tuple[Threshold, ...] = ()
    highest: float | None = None
    """The top of the axis. Default: the largest value."""
    alerts: tuple[str, ...] = ()
    """Alerts about what the panel shows. It links to their entries in the runbook."""
    by: str = ""
    """In a table: the label whose values are its rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label."""

    name: str
    title: str
    metric: str
    """The metric that has the label of this name. The values are those of the chosen routers."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of panels."""

    name: str
    """File name and end of the UID."""
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def uid(self) -> str:
        """Identifies it in Grafana."""
        return f"lora-router-{self.name}"


BASE_MODEL = Variable(
    "base_model", "Base model", "lora_router_request_duration_seconds_count{$routers}"
)


def filled(expr: str, seconds: int) -> str:
    """Return an expression with all values chosen, and rates over so many seconds."""
    return re.sub(r"\$\w+", ".*", expr.replace("$__rate_interval", f"{seconds}s"))


def quantile(share: float, metric: str, by: str, more: str = "") -> str:
    """Return the expression of a quantile of a classic histogram, by labels.

    Args:
        share: Which quantile, from 0 to 1.
        metric: The histogram, without ``_bucket``.
        by: Labels, with commas between them. Empty: one value.
        more: Further matchers of the series.
    """
    matchers = ", ".join(filter(None, ("$routers", more)))
    labels = ", ".join(filter(None, (by, "le")))
    rate = f"rate({metric}_bucket{{{matchers}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate}))"


def quantiles(metric: str, by: str, legend: str, more: str = "") -> tuple[Query, ...]:
    """Return the queries of the median and of the 99th percentile, by labels."""
    return tuple(
        Query(quantile(share, metric, by, more), f"{legend} {name}".strip())
        for share, name in ((0.5, "p50"), (0.99, "p99"))
    )


def rate(metric: str, by: str, more: str = "") -> str:
    """Return the expression of the increase of a counter in a second, by labels."""
    matchers = ", ".join(filter(None, ("$routers", more)))
    increase = f"rate({metric}{{{matchers}}}[$__rate_interval])"
    return f"sum by ({by}) ({increase})" if by else f"sum({increase})"
