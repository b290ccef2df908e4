"""A client's request to several pods, over real sockets."""

import asyncio
from collections.abc import Sequence

import pytest

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_calls import PodRequest, PodResult
from lora_router.scrape import places
from lora_router.scrape.pod_access import PodAccess
from lora_router.scrape.pod_calls import PodCalls
from lora_router.supervision import Supervisor
from tests.fleet import make_pod
from tests.waiting import until

LOAD = PodRequest("POST", "/v1/load_lora_adapter", b"{}", "application/json", "")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"


@pytest.mark.slow
async def test_silent_pods_do_not_keep_a_call_from_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "SLOW_SECONDS", 0.01)
    called = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal called
        await reader.readuntil(b"{}")
        called += 1
        writer.write(OK)
        await writer.drain()
        writer.close()

    results = list[PodResult]()

    def done(found: Sequence[PodResult]) -> None:
        results.extend(found)

    async with (
        await asyncio.start_server(silent, "127.0.0.1", 0) as one,
        await asyncio.start_server(answers, "127.0.0.1", 0) as two,
    ):
        dead, well = (f"127.0.0.1:{s.sockets[0].getsockname()[1]}" for s in (one, two))
        fleet = Fleet()
        fleet.replace([make_pod(n, address=dead if n < 40 else well) for n in range(1, 42)])
        calls = PodCalls(Supervisor(), PodAccess())

        calls.call(list(fleet), LOAD, 2.0, done)
        await until(lambda: called == 2)
        assert not results
        await until(lambda: bool(results))

    assert [result.state for result in results] == list(fleet)
    assert [result.status for result in results] == [504] * 39 + [200] * 2


async def test_pods_that_scrapes_cannot_reach_are_called_last() -> None:
    order = list[str]()

    class Calls(PodCalls):
        async def _call(self, session: object, state: object, request: object) -> PodResult:
            order.append(state.pod.name)  # type: ignore[attr-defined]
            return PodResult(state, 200, "")  # type: ignore[arg-type]

    fleet = Fleet()
    fleet.replace([make_pod(n) for n in (1, 2, 3)])
    states = list(fleet)
    states[0].unreachable_scrapes = 3
    results = list[PodResult]()

    Calls(Supervisor(), PodAccess()).call(states, LOAD, 30.0, results.extend)
    await until(lambda: bool(results))

    assert order == ["pod-2", "pod-3", "pod-1"]
    assert [result.state for result in results] == states
