"""Large uploads at once through a real Envoy, beside requests that are served."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.waiting import until

MEGABYTE = 1_000_000
PROMPT = {"model": "base", "tokens": 1, "pause": 0}


def upload(size: int) -> bytes:
    """A body with a long prompt."""
    return b'{"model": "base", "prompt": "' + b"x" * size + b'"}'


async def send(served: Gateway, body: bytes, outcomes: Counter[object]) -> None:
    """Send a body; count its status, and whether a refusal says when to come again."""
    response, text = await served.post(body)
    if response.status == 503:
        assert json.loads(text)["error"]["code"] == "router_overloaded"
        assert response.headers["retry-after"] == "1"
    outcomes[response.status] += 1


async def ask_until(served: Gateway, over: asyncio.Event, outcomes: Counter[object]) -> None:
    """Send small requests, one after another."""
    while not over.is_set():
        response, _ = await served.post(PROMPT)
        outcomes[response.status] += 1


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_uploads_are_served_or_refused_and_nobody_else_notices(
    tmp_path: Path, mode: str
) -> None:
    uploads, others, answers = Counter[object](), Counter[object](), Counter[object]()
    pods = [EchoPod("pod-0"), EchoPod("pod-1")]
    changes = {
        "envoy_body_mode": mode,
        "max_buffered_bytes": 128 * 1024 * 1024,
        # Not what is tested here, and the machine may be slow.
        "envoy_message_timeout_seconds": 20,
    }
    async with gateway(tmp_path, pods, **changes) as served:
        over = asyncio.Event()

        async def answer() -> None:
            response, text = await served.post({"model": "base", "tokens": 40, "pause": 0.1})
            answers[(response.status, text.endswith(b"[DONE]\n\n"))] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(answer())
                tasks.create_task(ask_until(served, over, others))
            await until(lambda: others[200] >= 20)
            body = upload(8 * MEGABYTE)
            await asyncio.gather(*(send(served, body, uploads) for _ in range(40)))
            over.set()

        assert set(uploads) <= {200, 503}
        assert uploads[200] >= 10
        assert uploads.total() == 40
        assert set(others) == {200}
        assert answers == {(200, True): 5}
        budget = served.app.transport.bounds.budget
        await until(lambda: budget.used == budget.waiting == served.in_flight == 0)


async def test_an_upload_for_which_there_is_no_room_is_told_to_come_again(tmp_path: Path) -> None:
    outcomes = Counter[object]()
    async with gateway(tmp_path, [EchoPod("pod-0")]) as served:
        budget = served.app.transport.bounds.budget
        budget.count_output(budget.largest)
        await send(served, upload(MEGABYTE), outcomes)
        assert outcomes == {503: 1}
        assert (await served.post(PROMPT))[0].status == 200

        budget.count_output(-budget.largest)
        await send(served, upload(MEGABYTE), outcomes)
        assert outcomes == {503: 1, 200: 1}
