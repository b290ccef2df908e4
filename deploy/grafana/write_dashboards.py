"""Writes the dashboards as JSON, and what the chart has of them: ``make dashboards``.

A test checks that the files are current. Grafana's own types (``grafana-foundation-sdk``) make the
JSON, so that a field that Grafana does not know cannot be written.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeAlias

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.adapters import ADAPTERS
from deploy.grafana.overview import OVERVIEW
from deploy.grafana.panels import ROUTERS, WIDTH, Dashboard, Panel, Query, Threshold
from deploy.grafana.pods import PODS
from deploy.grafana.router import ROUTER

FOLDER = Path(__file__).parent
CHART_FILES = FOLDER.parent / "helm" / "lora-router" / "files"
ALERTS = FOLDER / "alerts.yaml"
DASHBOARDS = (OVERVIEW, ADAPTERS, PODS, ROUTER)
RUNBOOK = "docs/runbook.md"
"""Where the runbook is, until you say where you publish it."""
PAGE = "http://localhost:8080/"
"""The router's page, through ``kubectl port-forward``."""

_TAG = "lora-router"
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_AnyPanel: TypeAlias = "stat.Panel | table.Panel | timeseries.Panel"


def files() -> dict[Path, str]:
    """Return the text of every file that this command writes."""
    found: dict[Path, str] = {CHART_FILES / ALERTS.name: ALERTS.read_text()}
    for each in DASHBOARDS:
        document = documented(built(each))
        name = f"{each.name}.json"
        found[FOLDER / name] = json.dumps(document, indent=2) + "\n"
        # `kubectl apply` keeps a copy of an object in an annotation of at most 256 KiB.
        found[CHART_FILES / "dashboards" / name] = (
            json.dumps(document, separators=(",", ":")) + "\n"
        )
    return found


def documented(dashboard: models.Dashboard) -> dict[str, Any]:
    """Return a dashboard's JSON as an object."""
    document: dict[str, Any] = json.loads(json.dumps(dashboard, cls=JSONEncoder))
    for variable in document["templating"]["list"]:
        # Grafana's types of version 13 have these for no kind of variable that is used here.
        for name in ("auto", "auto_count", "auto_min"):
            variable.pop(name, None)
    return document


def built(dashboard: Dashboard) -> models.Dashboard:
    """Return a dashboard in Grafana's types."""
    made = (
        builders.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags([_TAG])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .version(1)
        .links(_links())
        .variables(list(_variables(dashboard)))
    )
    number = 0
    for row in dashboard.rows:
        number += 1
        made.with_row(builders.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            made.with_panel(_panel(panel).id(number))
    return made.build()


def _links() -> list[Builder[models.DashboardLink]]:
    def link(title: str, kind: models.DashboardLinkType) -> builders.DashboardLink:
        return builders.DashboardLink(title).type(kind)

    return [
        link("Dashboards", models.DashboardLinkType.DASHBOARDS)
        .tags([_TAG])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True),
        link("Runbook", models.DashboardLinkType.LINK)
        .url("${runbook}")
        .tooltip("What each alert means, and what to do. The variable Runbook has its address.")
        .icon("doc")
        .target_blank(True),
        link("Router's page", models.DashboardLinkType.LINK)
        .url("${page}")
        .tooltip("The fleet, live, and why requests went where they went.")
        .icon("external link")
        .target_blank(True),
    ]


def _variables(
    dashboard: Dashboard,
) -> Iterator[Builder[models.VariableModel]]:
    yield builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    yield _labels("namespace", "Namespace", "lora_router_build_info")
    yield _labels("job", "Job", 'lora_router_build_info{namespace=~"$namespace"}')
    for each in dashboard.variables:
        yield _labels(each.name, each.title, each.metric.replace("$routers", ROUTERS))
    for name, label, address in (("runbook", "Runbook", RUNBOOK), ("page", "Router's page", PAGE)):
        yield builders.TextBoxVariable(name).label(label).default_value(address)


def _labels(name: str, title: str, metric: str) -> builders.QueryVariable:
    """Return a variable whose values are those of a label. All of them also match its absence."""
    query: dict[str, object] = {
        "qryType": 1,
        "query": f"label_values({metric},{name})",
        "refId": "PrometheusVariableQueryEditor-VariableQuery",
    }
    return (
        builders.QueryVariable(name)
        .label(title)
        .datasource(_SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(panel: Panel) -> _AnyPanel:
    made = _empty(panel)
    made.title(panel.title).description(panel.description).datasource(_SOURCE)
    made.height(panel.height).span(min(panel.width, WIDTH)).unit(panel.unit).min(0)
    made.thresholds(_thresholds(panel.thresholds))
    if panel.highest is not None:
        made.max(panel.highest)
    links: list[Builder[models.DashboardLink]] = [
        builders.DashboardLink(f"Runbook: {alert}")
        .type(models.DashboardLinkType.LINK)
        .url(f"${{runbook}}#{alert.lower()}")
        .target_blank(True)
        for alert in panel.alerts
    ]
    made.links(links)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        made.with_target(_target(panel, query).ref_id(letter).datasource(_SOURCE))
    return made


def _target(panel: Panel, query: Query) -> Dataquery:
    made = Dataquery().expr(query.text).legend_format(query.legend or "__auto")
    if panel.kind == "table":
        return made.instant().format(PromQueryFormat.TABLE)
    if "_bucket" in query.expr and panel.kind == "timeseries":
        made.exemplar(True)
    return made.range()


def _stat() -> stat.Panel:
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"])
    made = stat.Panel().reduce_options(reduce).graph_mode(shared.BigValueGraphMode.AREA)
    return made.no_value("none").color_scheme(_by_thresholds())


def _timeseries(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(shared.LegendDisplayMode.LIST)
        .placement(shared.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    tooltip = common.VizTooltipOptions().mode(shared.TooltipDisplayMode.MULTI)
    made = timeseries.Panel().legend(legend).tooltip(tooltip.sort(shared.SortOrder.DESCENDING))
    made.line_width(1).fill_opacity(30 if panel.stacked else 8)
    made.show_points(shared.VisibilityMode.AUTO).span_nulls(False)
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL).group("A"))
    if panel.thresholds:
        style = common.GraphThresholdsStyleConfig().mode(shared.GraphThresholdsStyleMode.DASHED)
        made.thresholds_style(style)
    return made


def _table(panel: Panel) -> table.Panel:
    """Return a table with a row for each value of a label, and a column for each query."""
    names = {
        f"Value #{letter}": query.legend
        for letter, query in zip(ascii_uppercase, panel.queries, strict=False)
    }
    order = {"Time": 0, panel.by: 1} | {name: place for place, name in enumerate(names, 2)}
    made = (
        table.Panel()
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": order,
                    "renameByName": names,
                },
            )
        )
        .filterable(True)
        .sort_by([common.TableSortByFieldState().display_name(panel.queries[0].legend).desc(True)])
    )
    for query in panel.queries:
        unit = models.DynamicConfigValue(id_val="unit", value=query.unit or panel.unit)
        made.override_by_name(query.legend, [unit])
    return made


def _empty(panel: Panel) -> _AnyPanel:
    match panel.kind:
        case "stat":
            return _stat()
        case "table":
            return _table(panel)
        case _:
            return _timeseries(panel)


def _thresholds(steps: tuple[Threshold, ...]) -> builders.ThresholdsConfig:
    """Return thresholds. Below the first one a value is good, unless a later one says so."""
    lowest = "red" if any(step.color == "green" for step in steps) else "green"
    below = [models.Threshold(value=None, color=lowest if steps else "blue")]
    above = [models.Threshold(value=step.value, color=step.color) for step in steps]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(below + above)


def _by_thresholds() -> builders.FieldColor:
    return builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
