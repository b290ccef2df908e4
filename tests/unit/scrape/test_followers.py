"""Who is told of what the scraper reads."""

import pytest

from lora_router.fleet.catalog import EMPTY
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import Reading
from lora_router.scrape.followers import Followers
from lora_router.supervision import Supervisor
from tests.fleet import make_fleet, state_of
from tests.unit.scrape.scraper_bench import Bench, Server, pod
from tests.waiting import until


def broken(*_what: object) -> None:
    raise ZeroDivisionError


def test_every_follower_is_told_though_another_fails() -> None:
    failed = list[str]()
    followers, heard = Followers(Supervisor(failed.append)), list[object]()
    reading = Reading(state_of(make_fleet(1), 1), 5.0, EMPTY)
    followers.subscribe_readings(broken)
    followers.subscribe_readings(heard.append)
    followers.subscribe_looked(broken)
    followers.subscribe_looked(lambda: heard.append("looked"))

    followers.read(reading)
    followers.looked()

    assert heard == [reading, "looked"]
    assert failed == ["reading-listener", "looked-listener"]


def test_a_follower_of_lists_is_told_when_the_pod_was_asked_and_may_let_the_read_fail() -> None:
    followers, heard = Followers(Supervisor()), list[tuple[PodState, float]]()
    state = state_of(make_fleet(1), 1)
    followers.subscribe_lists(lambda *told: heard.append(told))
    followers.subscribe_lists(broken)

    with pytest.raises(ZeroDivisionError):
        followers.listed(state, 5.0)

    assert heard == [(state, 5.0)]


async def test_a_listener_that_fails_does_not_end_the_reads() -> None:
    server, counted = Server(), list[str]()
    supervisor = Supervisor(counted.append)

    def broken() -> None:
        raise ZeroDivisionError

    async with (
        server.run() as address,
        Bench(pod("a", address), supervisor=supervisor, models_interval=3600.0) as bench,
    ):
        bench.scraper.followers.subscribe_looked(broken)
        await until(bench.scraper.look_again)
        await until(lambda: counted == ["looked-listener"])
