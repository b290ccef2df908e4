"""The log lines of abnormal requests, as a real Envoy causes them."""

import asyncio
import logging
from pathlib import Path

import pytest

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway
from tests.waiting import until

SECRET = "sk-not-for-logs"
PROMPT = "a prompt that is nobody's business"


async def test_held_refused_and_cancelled_requests_have_a_line_without_anything_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lora_router.requests")

    def lines() -> dict[str, dict[str, object]]:
        return {
            record.getMessage(): vars(record)["fields"]
            for record in caplog.records
            if record.name == "lora_router.requests"
        }

    pod = EchoPod("vllm-0", ("a1", "a2", "a3"), max_lora=1)
    async with gateway(tmp_path, [pod], max_held_requests=1, slow_request_seconds=600) as gate:

        def post(model: str, request_id: str, **more: object) -> "asyncio.Task[object]":
            headers = {"authorization": f"Bearer {SECRET}", "x-request-id": request_id}
            document = {"model": model, "prompt": PROMPT, **more}
            return asyncio.create_task(gate.post(document, "/v1/completions?key=k", headers))

        running = post("a1", "runs", tokens=1, pause=0, waits=True)
        await until(lambda: gate.in_flight == 1)
        leaves = post("a2", "leaves")
        await until(lambda: gate.app.director.held == 1)
        await post("a3", "refused")
        leaves.cancel()
        await until(lambda: gate.app.director.held == 0)
        waits = post("a2", "waits")
        await until(lambda: gate.app.director.held == 1)
        pod.may_end.set()
        await asyncio.gather(running, waits)
        await until(lambda: len(lines()) == 3)

    held = lines()["request held"]
    assert (held["request_id"], held["model"], held["adapter"]) == ("waits", "a2", "a2")
    assert (held["pod"], held["endpoint"], held["status"]) == ("vllm-0", pod.address, 200)
    assert held["held_for"]
    assert float(str(held["held_seconds"])) <= float(str(held["first_byte_seconds"]))
    refused = lines()["request refused"]
    assert (refused["request_id"], refused["status"]) == ("refused", 429)
    assert refused["path"] == "/v1/completions"
    cancelled = lines()["request cancelled,held"]
    assert (cancelled["request_id"], cancelled["reason"]) == ("leaves", "client-left")
    everything = str([vars(record) for record in caplog.records])
    assert SECRET not in everything
    assert PROMPT not in everything
