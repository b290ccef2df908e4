"""Envoy's access log has what the router decided, and both agree on times."""

import asyncio
import json
from pathlib import Path
from statistics import median
from typing import Any

from lora_router.telemetry.decisions import Decision
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.waiting import until

ADAPTERS = ("a1", "a2")
ROUNDS = 60
"""A machine may be busy, but not each time that a median is taken."""
TOGETHER = 5
ROUNDING = 0.001
"""Envoy's log has whole milliseconds."""


async def logged(gate: Gateway, request_id: str) -> dict[str, Any]:
    """Return the line of the access log about a request. Envoy writes it some time later."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        text = gate.envoy.access_log.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        found[:] = [line for line in lines if line["request_id"] == request_id]
        return bool(found)

    await until(is_there)
    return found[0]


def recorded(gate: Gateway, request_id: str) -> Decision:
    assert gate.app.decisions is not None
    return next(each for each in gate.app.decisions if each.request_id == request_id)


async def test_a_line_tells_the_decision_beside_the_status(tmp_path: Path) -> None:
    pod = EchoPod("vllm-0", ADAPTERS)
    async with gateway(tmp_path, [pod], response_headers="on") as gate:
        routed, _ = await gate.post({"model": "a1"}, "/v1/completions?key=secret")
        refused, _ = await gate.post({"model": "unknown"})

        line = await logged(gate, routed.headers["x-request-id"])
        assert {key: line[key] for key in ("status", "response_code_details", "path", "model")} == {
            "status": 200,
            "response_code_details": "via_upstream",
            "path": "/v1/completions",
            "model": "a1",
        }
        decision = recorded(gate, routed.headers["x-request-id"])
        assert (line["pod"], line["reason"]) == ("vllm-0", decision.reason)
        assert (line["algorithm"], line["held_ms"]) == ("lora-placement", 0)
        assert (line["adapter"], line["base_model"]) == ("a1", "base")
        assert routed.headers["x-lora-router-pod"] == "vllm-0"
        assert routed.headers["x-lora-router-reason"] == decision.reason

        line = await logged(gate, refused.headers["x-request-id"])
        assert (line["status"], line["reason"], line["pod"]) == (404, "unknown-model", None)
        assert refused.headers["x-lora-router-reason"] == "unknown-model"


async def test_the_parts_of_the_record_add_up_to_what_envoy_saw(tmp_path: Path) -> None:
    pod = EchoPod("vllm-0", ADAPTERS, max_lora=1)
    worst = 0.0
    async with gateway(tmp_path, [pod], response_headers="on") as gate:
        for _ in range(ROUNDS):
            pod.may_end.clear()
            waits = {"model": "a1", "tokens": 1, "pause": 0, "waits": True}
            blocker = asyncio.create_task(gate.post(waits))
            await until(lambda: gate.in_flight == 1)
            held = [asyncio.create_task(gate.post({"model": "a2"})) for _ in range(TOGETHER)]
            await until(lambda: gate.app.director.held == TOGETHER)
            await asyncio.sleep(0.12)
            pod.may_end.set()
            await blocker
            kinds = [
                [(await each)[0] for each in held],
                [(await gate.post({"model": "base"}))[0] for _ in range(TOGETHER)],
            ]
            for answers, is_held in zip(kinds, (True, False), strict=True):
                for answer in answers:
                    record = recorded(gate, answer.headers["x-request-id"])
                    assert bool(record.held_for) is is_held
                    assert (record.held_seconds > 0.1) is is_held
                    milliseconds = int(answer.headers["x-lora-router-held-ms"])
                    assert abs(milliseconds / 1000 - record.held_seconds) <= ROUNDING
            worst = max([median([await off_by(gate, each) for each in kind]) for kind in kinds])
            if worst <= 0.001 + ROUNDING:
                return
    raise AssertionError(f"the router and Envoy differ by {worst} s, in each of {ROUNDS} rounds")


async def off_by(gate: Gateway, answer: Any) -> float:
    """Return by how much the record of a request differs from Envoy's time to its first byte."""
    request_id = answer.headers["x-request-id"]
    record, line = recorded(gate, request_id), await logged(gate, request_id)
    assert record.pod_seconds is not None
    assert abs(line["held_ms"] / 1000 - record.held_seconds) <= ROUNDING
    parts = record.body_seconds + record.held_seconds + record.decision_seconds + record.pod_seconds
    seen: float = line["response_duration"] / 1000
    return abs(parts - seen)
