"""Clients that upload much, upload slowly, leave at every stage, or flood: others lose nothing."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.workload import ext_proc_messages
from tests.faults.field import Field, field
from tests.faults.figures import Figures
from tests.faults.floods import Flood
from tests.faults.load import Client, Seen
from tests.faults.plan import PLAN
from tests.faults.routers import Router
from tests.faults.verdict import verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
UPLOAD_BYTES = 20 * 1000 * 1000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    async with field(tmp_path_factory.mktemp("clients")) as running:
        yield running


async def test_many_large_uploads_cut_no_answer_and_lose_no_other_request(
    gateway: Field, figures: Figures
) -> None:
    """Each upload finishes, or is refused with a status that tells the client to try again."""
    router = gateway.router
    document = {"model": "base", "prompt": "x" * UPLOAD_BYTES, "stream": True}
    upload = json.dumps(document).encode()
    uploader, client = Client(gateway.url), Client(gateway.url)
    router.forget_peak()
    async with gateway.load(rate=PLAN.rate) as load:
        running = [
            asyncio.create_task(client.complete("base", max_tokens=150, pause=0.02))
            for _ in range(10)
        ]
        await load.for_(1)
        at = time.monotonic()
        uploads = await asyncio.gather(
            *(uploader.send(upload, "base") for _ in range(PLAN.uploads))
        )
        seconds = time.monotonic() - at
        answers = await asyncio.gather(*running)
        await load.for_(1)
    await uploader.close()
    await client.close()
    await gateway.until_idle()
    found = verdict([*load.seen, *answers], at)
    became = Counter(f"{each.status} {each.error}".strip() for each in uploads)
    peak = router.peak_memory() / MIB
    figures.add("Clients", f"{PLAN.uploads} uploads of 20 MB, other requests", found)
    figures.bound(
        f"{PLAN.uploads} uploads of 20 MB: what became of them", "200 or 503", str(dict(became))
    )
    figures.bound(
        f"{PLAN.uploads} uploads of 20 MB: until all had an answer", "", f"{seconds:.0f} s"
    )
    figures.bound(
        f"{PLAN.uploads} uploads of 20 MB: peak memory of the router", "512 MiB", f"{peak:.0f} MiB"
    )

    assert (found.lost, found.cut, found.failed_before) == (0, 0, 0), found
    assert {each.status for each in uploads} <= {200, 503}, became
    assert all(each.served if each.status == 200 else each.retry_after for each in uploads)
    assert became["200"] >= 5, became
    assert peak <= 512


async def test_slow_uploads_finish_and_hold_up_nobody(gateway: Field, figures: Figures) -> None:
    document = {"model": "base", "prompt": "x" * 40_000, "stream": True}
    upload = json.dumps(document).encode()
    async with gateway.load(rate=PLAN.rate) as load:
        await load.for_(0.5)
        at = time.monotonic()
        answers = await asyncio.gather(
            *(raw_answer(gateway, upload, pieces=20, pause=0.1) for _ in range(200))
        )
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("Clients", "200 uploads that take 2 s each, other requests", found)

    assert found.lost == 0, found
    assert Counter(answer[:12] for answer in answers) == {b"HTTP/1.1 200": 200}


async def raw_answer(gateway: Field, body: bytes, *, pieces: int, pause: float) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.envoy.port)
    writer.write(head(len(body), "connection: close"))
    size = -(-len(body) // pieces)
    for at in range(0, len(body), size):
        writer.write(body[at : at + size])
        await writer.drain()
        await asyncio.sleep(pause)
    answer = await reader.read()
    writer.close()
    return answer


def head(length: int, *lines: str) -> bytes:
    fixed = ("POST /v1/completions HTTP/1.1", "host: x", "content-type: application/json")
    return "\r\n".join((*fixed, f"content-length: {length}", *lines, "", "")).encode()


async def test_clients_that_leave_at_every_stage_leave_nothing_behind(
    gateway: Field, figures: Figures
) -> None:
    """The stages: within the headers, the body, the wait for a pod, and the answer."""
    router, rng = gateway.router, random.Random(1)
    before = router.memory()
    # One slot a pod, all taken: requests for other adapters are held in the router.
    for pod in gateway.pods:
        await pod.become(slots=1)
    client = Client(gateway.url)
    await until_slots(router, 1)
    async with gateway.load(rate=PLAN.rate, models=("base",)) as load:
        at = time.monotonic()
        have_left = asyncio.Event()
        long = [
            asyncio.create_task(answered_until(have_left, client, model))
            for model in ("a1", "a2", "a3", "a4")
        ]
        await until_running(router, 4)
        held = await until_held(gateway)
        for _ in range(10):
            await asyncio.gather(*(leave(gateway, rng) for _ in range(60)))
            for each in held:
                each.transport.abort()
        have_left.set()
        answers = [answer for several in await asyncio.gather(*long) for answer in several]
    for pod in gateway.pods:
        await pod.heal()
    await client.close()
    await gateway.until_idle()
    found = verdict(load.seen, at)
    grown = (router.memory() - before) / MIB
    figures.add("Clients", "600 clients leave at every stage, other requests", found)
    figures.bound("600 clients that leave: growth of the router", "32 MiB", f"{grown:.0f} MiB")

    assert found.lost == 0, found
    assert all(answer.served for answer in answers), answers
    assert grown <= 32


def request(model: str) -> bytes:
    body = json.dumps({"model": model, "prompt": "x" * 2000, "stream": True, "max_tokens": 50})
    return head(len(body)) + body.encode()


async def connected(gateway: Field, sent: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.envoy.port)
    writer.write(sent)
    return writer


async def until_slots(router: Router, slots: int) -> None:
    """Wait until the router has read that each pod has so many slots."""
    async with asyncio.timeout(60):
        while True:
            status, page = await router.get("/debug/pods")
            assert status == 200, page
            if {each["slots"] for each in json.loads(page)["pods"]} == {slots}:
                return
            await asyncio.sleep(0.05)


async def until_running(router: Router, adapters: int) -> None:
    async with asyncio.timeout(60):
        while await router.metric("lora_router_in_flight_adapters") < adapters:
            await asyncio.sleep(0.02)


async def answered_until(end: asyncio.Event, client: Client, model: str) -> list[Seen]:
    """Ask for long answers, one after the other."""
    answers = []
    while not end.is_set():
        answers.append(await client.complete(model, "lora-placement", max_tokens=100, pause=0.02))
    return answers


async def until_held(gateway: Field) -> list[asyncio.StreamWriter]:
    """Send requests for a further adapter until one of them is held; return their connections."""
    sent: list[asyncio.StreamWriter] = []
    async with asyncio.timeout(60):
        while not await gateway.router.metric("lora_router_held_requests"):
            # A slot is free between two answers, and on a busy machine Envoy may ask no router.
            sent.append(await connected(gateway, request("a5")))
            await asyncio.sleep(0.2)
    return sent


async def leave(gateway: Field, rng: random.Random) -> None:
    """Send a request up to some byte, wait for some time, and close the connection."""
    whole = request(rng.choice(("base", "a1", "a5", "a6", "unknown")))
    length = rng.choice((40, len(whole) // 2, len(whole), len(whole)))
    writer = await connected(gateway, whole[:length])
    await asyncio.sleep(rng.choice((0, 0.005, 0.05, 0.3)))
    if rng.random() < 0.5:
        writer.transport.abort()
    writer.close()


@pytest.mark.parametrize("by", ["the client", "the server"])
async def test_floods_of_resets_over_many_connections_lose_no_other_request(
    gateway: Field, figures: Figures, by: str
) -> None:
    router = gateway.router
    async with gateway.load(rate=PLAN.rate) as load:
        await load.for_(0.5)
        at = time.monotonic()
        floods = await asyncio.gather(*(Flood.connected(router.grpc_port) for _ in range(20)))
        opened = await asyncio.gather(
            *(flood.reset_streams(20_000, by_the_server=by == "the server") for flood in floods)
        )
        await load.for_(1)
        for flood in floods:
            flood.close()
        await load.for_(1)
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("Clients", f"20 connections x 20,000 resets by {by}, other requests", found)
    figures.bound(f"20 x 20,000 resets by {by}: sent", "", f"{sum(opened):,}")

    assert found.lost == 0, found
    assert found.waited <= found.sent // 20, found


async def test_unfinished_messages_over_many_connections_take_bounded_memory(
    gateway: Field, figures: Figures
) -> None:
    router = gateway.router
    router.forget_peak()
    async with gateway.load(rate=PLAN.rate) as load:
        await load.for_(0.5)
        at = time.monotonic()
        floods = await asyncio.gather(*(Flood.connected(router.grpc_port) for _ in range(8)))
        sent = await asyncio.gather(
            *(flood.send_unfinished(20 * MIB, 200 * MIB) for flood in floods)
        )
        await load.for_(1)
        peak = router.peak_memory() / MIB
        for flood in floods:
            flood.close()
        await load.for_(1)
    await gateway.until_idle()
    found = verdict(load.seen, at)
    figures.add("Clients", "8 connections x 200 MB of unfinished messages, other requests", found)
    figures.bound("8 x 200 MB unfinished: sent", "", f"{sum(sent) / MIB:.0f} MiB")
    figures.bound("8 x 200 MB unfinished: peak memory", "400 MiB", f"{peak:.0f} MiB")

    assert found.lost == 0, found
    assert peak <= 400


async def test_names_of_models_that_nobody_serves_leave_nothing_behind(
    gateway: Field, figures: Figures
) -> None:
    router = gateway.router
    client = await Flood.connected(router.grpc_port)
    before, (_, page) = router.memory(), await router.get("/metrics")
    names = iter(range(PLAN.names))

    async def ask() -> None:
        for number in names:
            assert await client.ask(ext_proc_messages(1_000, f"nobody-{number}"))

    async with gateway.load(rate=PLAN.rate) as load:
        at = time.monotonic()
        await asyncio.gather(*(ask() for _ in range(64)))
    client.close()
    await gateway.until_idle()
    found = verdict(load.seen, at)
    grown = (router.memory() - before) / MIB
    _, page_after = await router.get("/metrics")
    figures.add("Clients", f"{PLAN.names:,} models that nobody serves, other requests", found)
    figures.bound(f"{PLAN.names:,} unknown models: growth", "32 MiB", f"{grown:.0f} MiB")

    assert found.lost == 0, found
    assert grown <= 32
    assert "nobody" not in page_after
    # Other requests bring series of their own: pods, adapters, reasons.
    assert len(page_after.splitlines()) <= len(page.splitlines()) + PLAN.names / 10
