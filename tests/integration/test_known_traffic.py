"""The metrics of requests after known traffic through a real Envoy."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.waiting import until

PAUSE = 0.2
"""Seconds after which the pod answers one of the requests."""


class Pod(EchoPod):
    """A pod that fails and dawdles on request."""

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        if b"fails" in await request.read():
            return web.Response(status=500)
        if b"dawdles" in await request.read():
            await asyncio.sleep(PAUSE)
        return await super()._echo(request)


class Page:
    """The values of a page."""

    def __init__(self, text: bytes) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }

    def value(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        return self._values.get((f"lora_router_{name}", frozenset((labels or {}).items())))

    def total(self, name: str, labels: Mapping[str, str]) -> float:
        """Return the sum of all series of a name with these labels and others."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, theirs), value in self._values.items()
            if found == f"lora_router_{name}" and wanted <= theirs
        )


async def page_of(gate: Gateway) -> Page:
    return Page((await gate.app.telemetry.served("")).body)


async def known_traffic(tmp_path: Path) -> tuple[Page, Page, float]:
    """Send requests. Return a page while two of them are open, one at the end, and the seconds."""
    pod = Pod("vllm-0", ("a1", "a2", "a3"), max_lora=1)
    async with gateway(tmp_path, [pod], max_held_requests=1) as gate:
        began = time.monotonic()
        for model in ("base", "a1", "a1"):
            assert (await gate.post({"model": model}))[0].status == 200
        await gate.post({"model": "a1", "prompt": "dawdles"})
        assert (await gate.post({"model": "a1", "prompt": "fails"}))[0].status == 500
        assert (await gate.post({"model": "nobody"}))[0].status == 404
        waits = {"model": "a1", "tokens": 1, "pause": 0, "waits": True}
        running = asyncio.create_task(gate.post(waits))
        await until(lambda: gate.in_flight == 1)
        held = asyncio.create_task(gate.post({"model": "a2"}))
        await until(lambda: gate.app.director.held == 1)
        assert (await gate.post({"model": "a3"}))[0].status == 429
        await until(lambda: gate.app.transport.open_streams == 2)

        meanwhile = await page_of(gate)
        await asyncio.sleep(PAUSE)
        pod.may_end.set()
        assert [(await task)[0].status for task in (running, held)] == [200, 200]
        await until(lambda: gate.app.transport.open_streams == 0)
        return meanwhile, await page_of(gate), time.monotonic() - began


async def test_each_request_counts_where_it_should(tmp_path: Path) -> None:
    meanwhile, page, seconds = await known_traffic(tmp_path)

    assert meanwhile.value("held_requests") == 1
    assert meanwhile.value("open_streams") == 2
    assert meanwhile.value("reservations") == 1
    assert meanwhile.value("in_flight_requests", {"pod": "vllm-0"}) == 1
    assert meanwhile.value("in_flight_adapters", {"pod": "vllm-0"}) == 1

    assert page.total("requests_total", {"outcome": "routed"}) == 7
    assert page.total("requests_total", {"outcome": "refused"}) == 2
    assert page.total("requests_total", {"outcome": "held"}) == 1
    assert page.total("decision_seconds_count", {}) == 7
    assert page.value("answers_total", {"by": "pod", "status": "2xx"}) == 6
    assert page.value("answers_total", {"by": "pod", "status": "5xx"}) == 1
    model, adapter = {"base_model": "base"}, {"adapter": "a1"}
    for prefix, labels, requests in (
        ("", model, 7),
        ("pod_", {"pod": "vllm-0"}, 7),
        ("adapter_", adapter, 5),
        ("adapter_", {"adapter": "a2"}, 1),
        ("adapter_", {"adapter": "other"}, 0),
    ):
        for kind in ("time_to_first_byte_seconds", "request_duration_seconds"):
            assert page.value(f"{prefix}{kind}_count", labels) == requests, (prefix, labels)
            total = page.value(f"{prefix}{kind}_sum", labels)
            assert total is not None
            assert 0 <= total <= 2 * seconds
            fast = page.value(f"{prefix}{kind}_bucket", {**labels, "le": "0.1"})
            # Those that dawdled or waited took longer than PAUSE, however fast the machine is.
            assert fast is not None
            slow = {"": 2, "pod_": 2, "adapter_": 1}[prefix] if requests else 0
            assert fast <= requests - slow
    assert page.value("hold_seconds_count", model) == 1
    assert page.value("adapter_hold_seconds_count", {"adapter": "a2"}) == 1
    waited = page.value("hold_seconds_sum", model)
    assert waited is not None
    assert PAUSE <= waited <= seconds
    for failed, labels in (
        ("failed_requests_total", model),
        ("pod_failed_requests_total", {**model, "pod": "vllm-0"}),
        ("adapter_failed_requests_total", adapter),
    ):
        assert page.value(failed, {**labels, "cause": "status"}) == 1
        assert page.value(failed, {**labels, "cause": "unanswered"}) == 0
    # The pod has had no request for either adapter before the first one.
    assert page.value("adapter_requests_total", {**adapter, "found": "nowhere"}) == 1
    assert page.total("adapter_requests_total", adapter) == 5
    assert page.value("adapter_requests_total", {"adapter": "a2", "found": "nowhere"}) == 1
    assert page.value("spills_total", model) == 0
    assert page.value("replications_total", model) == 0
    assert page.value("retried_requests_total") == 0
    assert page.value("held_requests") == page.value("reservations") == 0
    assert page.value("in_flight_requests", {"pod": "vllm-0"}) == 0
