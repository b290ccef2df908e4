"""Draws the dashboards from a run of the demo's fleet: ``make dashboard-pictures``.

These are not pictures of Grafana. They show what a real Prometheus answers to the query of each
panel, in the dashboard's grid. Two routers that are peers serve the demo's load, and the pods have
half of the demo's slots, so that requests wait for slots.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from time import time

from deploy.grafana.drawing import Answer, Span, draw
from deploy.grafana.panels import Dashboard, Panel
from deploy.grafana.prometheus_process import Prometheus
from deploy.grafana.write_dashboards import DASHBOARDS
from lora_router.demo.load import Player, make_trace
from lora_router.demo.plan import demo_plan
from lora_router.demo.processes import ChildError, Children
from lora_router.demo.stack import DemoStack

IMAGES = Path(__file__).parents[2] / "docs" / "images"
RATE_SECONDS = 20
"""Grafana's ``$__rate_interval``."""
STEP_SECONDS = 1


async def main() -> None:
    """Run the fleet, ask for every panel, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0, help="length of the load")
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where the pictures go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-router-dashboards-") as name:
        folder = Path(name)
        async with Children(folder) as children:
            stack = DemoStack(children, folder, demo_plan(2))
            await stack.start("lora-placement")
            targets = [f"127.0.0.1:{router.admin_port}" for router in stack.routers]
            async with Prometheus(folder, targets) as prometheus:
                await prometheus.scraped(2)
                began = time()
                trace = make_trace(7, arguments.seconds)
                playing = asyncio.create_task(Player(stack.url, trace).play())
                # Not until the last answer: tables and numbers show the load and not its end.
                await asyncio.wait({playing}, timeout=arguments.seconds)
                span = Span(began, time())
                for dashboard in DASHBOARDS:
                    answers = await _answers(prometheus, dashboard, span)
                    draw(dashboard, answers, span, arguments.folder)
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)


async def _answers(
    prometheus: Prometheus, dashboard: Dashboard, span: Span
) -> dict[Panel, list[Answer]]:
    found: dict[Panel, list[Answer]] = {}
    for row in dashboard.rows:
        for panel in row.panels:
            found[panel] = [
                Answer(query, await _ask(prometheus, panel, query.filled(RATE_SECONDS), span))
                for query in panel.queries
            ]
    return found


async def _ask(
    prometheus: Prometheus, panel: Panel, expression: str, span: Span
) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """Return each series: its labels, and its times and values."""
    if panel.kind == "table":
        data = await prometheus.ask("query", query=expression, time=str(span.end))
        return [
            (each["metric"], [(float(each["value"][0]), float(each["value"][1]))])
            for each in data["result"]
        ]
    data = await prometheus.ask(
        "query_range",
        query=expression,
        start=str(span.begin),
        end=str(span.end),
        step=str(STEP_SECONDS),
    )
    return [
        (each["metric"], [(float(at), float(value)) for at, value in each["values"]])
        for each in data["result"]
    ]


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (ChildError, OSError, RuntimeError) as error:
        raise SystemExit(f"dashboard-pictures: {error}") from None
