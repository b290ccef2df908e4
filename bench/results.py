"""The results of a run, and whether they meet the goals."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.outside_algorithm import FewestRequests
from bench.plan import BASE, Point
from bench.processes import GENERIC
from bench.router_process import Scraped, Started, Streams
from bench.wire import NOOP_SERVER, ROUTER, Row

_PEERS_220_KB = 130.0
"""Requests per second that were published for routers written in Go with such bodies
(kubernetes-sigs/gateway-api-inference-extension#2928, llm-d/llm-d-router#1109)."""


@dataclass(frozen=True, slots=True)
class Results:
    """All results of a run."""

    machine: dict[str, str]
    seconds: float
    """Length of the whole run."""
    transports: Sequence[str]
    """The goals apply to the first one. The generic one is the last."""
    wire: Sequence[Row]
    starts: Sequence[Started]
    streams: Sequence[Streams]
    scraped: Sequence[Scraped]
    """Without scraping, and with a scrape each second."""
    parts: dict[str, float]
    """µs."""
    run: dict[str, str] = field(default_factory=dict)
    """When it was made, and of which commit."""

    def row(self, point: Point, server: str = ROUTER, transport: str | None = None) -> Row | None:
        """Return the row of a point, for the first transport unless another one is named."""
        wanted = self.transports[0] if transport is None else transport
        for row in self.wire:
            if (row.point, row.server, row.transport) == (point, server, wanted):
                return row
        return None


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal, and the result."""

    what: str
    wanted: str
    reached: str
    met: bool | None
    """``None``: there is no goal. The result is shown for comparison."""


def goals(results: Results) -> list[Goal]:
    """Compare a run with the goals. Goals that the run did not measure are left out."""
    held = sum(row.not_routed for row in results.wire)
    return [
        *_on_the_path(results),
        *_in_parts(results),
        *_of_the_process(results),
        Goal("requests that were held or refused in these runs", "0", str(held), held == 0),
    ]


def _on_the_path(results: Results) -> list[Goal]:
    made = []
    base = results.row(BASE)
    if base is not None and base.cpu_us is not None:
        at = "1 KB, 64 connections, 8 pods"
        made.append(_at_most(f"CPU per request: {at}", base.cpu_us, 45, "µs"))
        generic = results.row(BASE, transport=GENERIC)
        if results.transports[0] != GENERIC and generic is not None and generic.cpu_us:
            share = base.cpu_us / generic.cpu_us
            made.append(_at_most(f"CPU per request, relative to {GENERIC}", share, 0.1, "times"))
        share = base.cpu_us / base.envoy_cpu_us
        made.append(_at_most("CPU per request, relative to Envoy's own", share, 1, "times"))
        noop = results.row(BASE, NOOP_SERVER)
        if noop is not None:
            share = base.requests_per_second / noop.requests_per_second
            made.append(
                _at_least(
                    f"requests/s, relative to a server that decides nothing: {at}", share, 0.9
                )
            )
    one = results.row(Point(connections=1))
    if one is not None and one.added_p50_us is not None:
        made.append(_at_most("added latency, p50: 1 connection", one.added_p50_us, 250, "µs"))
    alone = results.row(Point(connections=1), NOOP_SERVER)
    if alone is not None and alone.added_p50_us is not None:
        what = "added latency, p50: 1 connection, a server that decides nothing"
        made.append(_at_most(what, alone.added_p50_us, None, "µs"))
    long = results.row(Point(body_bytes=220_000))
    if long is not None and long.cpu_us is not None:
        made.append(_at_most("CPU per request: 220 KB", long.cpu_us, 350, "µs"))
        made.append(
            _at_least("requests/s: 220 KB", long.requests_per_second, 8 * _PEERS_220_KB, "/s")
        )
    return made


def _in_parts(results: Results) -> list[Goal]:
    made = []
    for kind, wanted in (("decision", 25.0), ("routed", None)):
        found = {
            name: value
            for name, value in results.parts.items()
            if name.startswith(f"{kind}, ") and name.endswith(", 1000 pods")
        }
        if found:
            slowest = max(found, key=found.__getitem__)
            name = slowest.split(", ")[1]
            what = f"{kind}, 1,000 pods, 10,000 adapters: slowest algorithm ({name})"
            made.append(_at_most(what, found[slowest], wanted, "µs"))
    outside = results.parts.get(f"decision, {FewestRequests.name}, 1000 pods")
    ours = results.parts.get("decision, least-request, 1000 pods")
    if outside is not None and ours is not None:
        what = "decision, 1,000 pods: an algorithm from outside, relative to least-request"
        made.append(_at_most(what, outside / ours, 1.1, "times"))
    made += [
        _at_most(f"{name}, parsed to a snapshot", value, 120, "µs")
        for name, value in results.parts.items()
        if name.startswith("metrics page")
    ]
    return made + _while_held(results)


def _while_held(results: Results) -> list[Goal]:
    made = []
    for point in ("872 held on 32 pods", "5,000 held on 200 pods"):
        for kind, wanted in (("release", 100.0), ("scrape", None), ("pod event", None)):
            found = [
                value
                for name, value in results.parts.items()
                if name.startswith(kind) and name.endswith(f", {point}")
            ]
            if found:
                made.append(_at_most(f"{kind}, {point}: slowest kind", max(found), wanted, "µs"))
    return made


def _of_the_process(results: Results) -> list[Goal]:
    made = []
    if results.scraped:
        never, often = results.scraped
        pods = f"{often.pods:,} pods scraped each second"
        made.append(_at_most(f"{pods}: share of one core", often.cores, 0.4))
        made.append(
            _at_most(
                f"{pods}: p99 of a decision (router's metric), relative to no scraping",
                often.decision_p99_us / never.decision_p99_us,
                2,
                "times",
            )
        )
        made.append(
            _at_most(
                f"{pods}: p99 of an answer, relative to no scraping",
                often.answer_p99_us / never.answer_p99_us,
                None,
                "times",
            )
        )
    made += [
        _at_most(f"{each.streams:,} open streams: memory of each", each.bytes_each / 1024, 6, "KB")
        for each in results.streams
        if each.transport == results.transports[0]
    ]
    made += [
        _at_most(f"start to ready, {each.pods} pods", each.seconds, 1, "s")
        for each in results.starts
        if each.transport == results.transports[0]
    ]
    return made


def _at_most(what: str, value: float, wanted: float | None, unit: str = "") -> Goal:
    if wanted is None:
        return Goal(what, "", _shown(value, unit), None)
    return Goal(what, f"≤ {_shown(wanted, unit)}", _shown(value, unit), value <= wanted)


def _at_least(what: str, value: float, wanted: float, unit: str = "") -> Goal:
    return Goal(what, f"≥ {_shown(wanted, unit)}", _shown(value, unit), value >= wanted)


def _shown(value: float, unit: str) -> str:
    if unit == "/s":
        return f"{value:,.0f}/s"
    return f"{value:,.3g} {unit}".strip() if value < 100 else f"{value:,.0f} {unit}".strip()
