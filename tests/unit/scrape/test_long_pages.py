"""Long metrics pages take little of the CPU, and their reads wait for no silent pod."""

import asyncio
from collections.abc import Iterator

import pytest

from lora_router.log_limit import LogLimit
from lora_router.scrape import long_pages, page_reader, places
from lora_router.scrape.exposition import read_page
from lora_router.scrape.long_pages import LongPages
from lora_router.scrape.read_health import ReadHealth
from tests.unit.scrape.scraper_bench import PAGE, Bench, Server, pod
from tests.waiting import until

NOW = 1.7e9


def page(combinations: int) -> str:
    return PAGE + "".join(
        f'vllm:lora_requests_info{{max_lora="8",running_lora_adapters="a{number}",'
        f'waiting_lora_adapters=""}} {NOW - combinations + number}\n'
        for number in range(combinations)
    )


def health() -> ReadHealth:
    return ReadHealth("a", "metrics", LogLimit(1.0, burst=1, clock=lambda: 0.0))


def ticking(seconds: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += seconds


@pytest.fixture(autouse=True)
def no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine does not make reads slow."""
    monkeypatch.setattr(places, "SLOW_SECONDS", 60.0)


@pytest.mark.slow
async def test_a_page_of_many_combinations_is_read_though_it_is_much_longer_than_what_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_reader, "MAX_HELD_BYTES", 3 * 1024 * 1024)
    server = Server(page=page(50_000))
    assert len(server.page) > 4 * 1024 * 1024
    async with server.run() as address:
        pods = [pod(f"p{number}", address, models=("m",)) for number in range(2)]
        async with Bench(*pods) as bench:
            await until(lambda: all(state.metrics is not None for state in bench.fleet))

            assert not bench.counts.bad
            for state in bench.fleet:
                assert state.metrics is not None
                assert state.metrics.lora is not None
                assert state.metrics.lora.active == {"a49999"}


async def test_a_page_that_became_long_is_read_again_at_once_in_a_place_for_long_ones() -> None:
    server = Server()
    async with server.run() as address, Bench(pod("a", address, models=("m",))) as bench:
        await until(lambda: server.metrics_reads >= 2)
        server.page = page(5000)
        await until(lambda: bench.state("a").metrics is not None and _adapters(bench) == {"a4999"})

        assert not bench.counts.bad


def _adapters(bench: Bench) -> frozenset[str]:
    metrics = bench.state("a").metrics
    return frozenset() if metrics is None or metrics.lora is None else metrics.lora.active


async def test_a_place_rests_forty_times_as_long_as_its_page_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept = list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    pages, read = LongPages(), health()
    pages.resting = True
    async with pages.place(read):
        read.work = 0.01

    assert slept == [pytest.approx(0.39)]


async def test_no_place_rests_before_requests_are_served() -> None:
    pages, read = LongPages(), health()
    for _ in range(20):
        async with pages.place(read):
            read.work = 3600.0


async def test_a_read_that_waits_for_its_pod_frees_its_place_and_rests_all_the_same() -> None:
    pages, read = LongPages(), health()
    pages.resting = True
    async with pages.place(read) as place:
        place.wait_outside()
        others = [pages.place(health()) for _ in range(long_pages.LONG_PAGES_AT_ONCE)]
        async with asyncio.timeout(30), others[0], others[1], others[2], others[3]:
            pass
        read.work = 0.0001


async def test_a_read_whose_page_arrives_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(long_pages, "LONG_PAGES_AT_ONCE", 1)
    pages, read = LongPages(), health()
    async with pages.place(read) as place:
        await pages.page(read, NOW).add(b"x\n")
        place.wait_outside()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pages.place(health()).__aenter__(), 0.01)


async def test_a_page_is_filtered_in_short_goes_with_other_work_in_between() -> None:
    clock = ticking(0.0002)
    read = health()
    filtered = LongPages(lambda: next(clock)).page(read, NOW)
    text, turns = page(1000).encode(), 0
    adding = asyncio.ensure_future(filtered.add(text))
    while not adding.done():
        turns += 1
        await asyncio.sleep(0)

    # By this clock, a step takes 0.2 ms, and a go has two of them.
    assert turns >= len(text) / 16_384 / 2
    assert read.is_long
    assert read.work > 0
    kept = await filtered.finish()
    assert read_page(kept, engine=None, scraped_at=0.0, wall_now=NOW) == read_page(
        text, engine=None, scraped_at=0.0, wall_now=NOW
    )


@pytest.mark.slow
async def test_silent_pods_do_not_delay_the_long_pages_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "SLOW_SECONDS", 0.02)
    monkeypatch.setattr(page_reader, "LONG_PAGE_BYTES", 100)
    silent, healthy = Server(page=page(9)), Server(page=page(9))
    async with silent.run() as one, healthy.run() as two:
        pods = [pod(f"silent-{number}", one, models=("m",)) for number in range(8)]
        pods.append(pod("healthy", two, models=("m",)))
        async with Bench(*pods) as bench:
            await until(lambda: all(state.metrics is not None for state in bench.fleet))
            silent.delay = 30.0
            reads = healthy.metrics_reads
            await until(lambda: healthy.metrics_reads >= reads + 10)


async def test_pods_that_scrapes_cannot_reach_do_not_delay_the_long_lists_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_reader, "LONG_PAGE_BYTES", 10)
    server = Server()
    async with server.run() as address:
        pods = [pod(f"gone-{number}", "127.0.0.1:1") for number in range(8)]
        async with Bench(*pods, pod("healthy", address)) as bench:
            for state in bench.fleet:
                state.unreachable_scrapes = 1
            await until(lambda: server.models_reads >= 5)
