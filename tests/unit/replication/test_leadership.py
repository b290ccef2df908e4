"""Routers that compete for a Lease: who leads, and when that changes."""

import asyncio
import logging
import random

import pytest

from lora_router.discovery.kubernetes_api import ApiError
from lora_router.replication.lease import Claim, Lease
from lora_router.replication.metrics import LeaseMetrics
from tests.parameters import mostly_slow
from tests.unit.replication.lease_server import LeaseServer
from tests.unit.replication.routers import Router, now, routers
from tests.unit.replication.virtual_time import in_virtual_time

FORBIDDEN = ApiError("forbidden", 'status 403: leases "l" is forbidden')
AWAY = ApiError("connect", "Connection refused")


def test_the_first_router_leads_at_once_and_the_second_is_its_standby() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        router = Router(server, "a")
        router.start()
        assert await router.until(ready=True, within=1) < 0.1
        async with routers(server, "b") as (standby,):
            await asyncio.sleep(60)
            assert router.ready
            assert not standby.ready
            assert standby.leadership.standby_reason() == (
                f"standby: a leads since {router.leadership.election.claim.acquired}"
            )
            status = standby.leadership.status()
            assert (status["lease"], status["leads"], status["leader"]) == ("models/l", False, "a")
        await router.kill()

    in_virtual_time(scenario())


def test_a_leader_that_is_no_peer_is_reported() -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as (leader, standby):
            standby.peers = set()
            assert standby.leadership.standby_reason() == (
                f"standby: a leads since {leader.leadership.election.claim.acquired}, and is not a "
                "peer of this router; does another fleet use lease models/l?"
            )

    in_virtual_time(scenario())


def test_a_router_does_not_lead_before_it_is_able_to() -> None:
    async def scenario() -> None:
        router = Router(LeaseServer(), "a")
        router.start(campaign=False)
        await asyncio.sleep(10)
        assert not router.ready
        router.leadership.campaign()
        assert await router.until(ready=True, within=1) < 0.1
        await router.kill()

    in_virtual_time(scenario())


def test_the_leader_renews_every_half_second_and_the_standby_only_watches() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b") as (_, standby):
            versions, reads = server.versions, standby.connection.reads
            await asyncio.sleep(10)
            assert 18 <= server.versions - versions <= 20
            assert standby.connection.reads == reads

    in_virtual_time(scenario())


@pytest.mark.slow
def test_a_leader_that_dies_is_replaced_within_three_seconds() -> None:
    async def scenario() -> None:
        # At each point of the interval between two renewals.
        for wait in range(10):
            async with routers(LeaseServer(), "a", "b") as (leader, standby):
                await asyncio.sleep(wait * 0.05)
                await leader.kill()
                assert await standby.until(ready=True, within=5) < 2.2

    in_virtual_time(scenario())


def test_a_leader_that_leaves_is_replaced_at_once() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b", "c") as (leader, *standbys):
            began = now()
            await leader.leave()
            while not any(each.ready for each in standbys):
                await asyncio.sleep(0.001)
            assert now() - began < 0.2
            await asyncio.sleep(5)
            assert [each.ready for each in standbys].count(True) == 1
            assert server.lease is not None
            assert server.lease.claim.transitions == 2

    in_virtual_time(scenario())


def test_a_renewal_that_arrived_although_it_was_cancelled_does_not_hinder_the_release() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b") as (leader, standby):
            leader.connection.late_answers = True
            await asyncio.sleep(0.6)
            leader.connection.late_answers = False
            await leader.leave()
            assert await standby.until(ready=True, within=5) < 0.2

    in_virtual_time(scenario())


@pytest.mark.slow
def test_clocks_that_show_different_times_do_not_matter() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        # Written by a host whose clock is a year ahead, which died.
        server.set(Claim("dead", 2, "2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z", 7))
        ahead = Router(server, "a", clock_ahead=1e6)
        ahead.start()
        assert 2.0 <= await ahead.until(ready=True, within=5) < 2.2
        async with routers(server, "b") as (standby,):
            await asyncio.sleep(30)
            assert (ahead.ready, standby.ready) == (True, False)
            assert server.lease is not None
            assert server.lease.claim.transitions == 8
        await ahead.kill()

    in_virtual_time(scenario())


@pytest.mark.parametrize("fault", ["failure", "silent"])
def test_a_leader_that_cannot_renew_stops_before_another_begins(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as (leader, standby):
            setattr(leader.connection, fault, AWAY)
            await standby.until(ready=True, within=5)
            ended, begun = leader.history[-1], standby.history[-1]
            assert (ended[1], begun[1]) == (False, True)
            assert begun[0] - ended[0] > 0.4
            setattr(leader.connection, fault, None)
            await asyncio.sleep(5)
            assert (leader.ready, standby.ready) == (False, True)

    with caplog.at_level(logging.INFO):
        in_virtual_time(scenario())
    assert "leads no longer: lease models/l was not renewed in time" in caplog.text
    assert "standby: b holds lease models/l" in caplog.text


def test_without_an_api_server_no_router_leads_and_with_it_again_one_does() -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as both:
            for each in both:
                each.connection.failure = AWAY
            await asyncio.sleep(60)
            assert not any(each.ready for each in both)
            assert both[0].leadership.standby_reason() == (
                "standby: no router leads; cannot use lease models/l: Connection refused"
            )
            assert both[0].leadership.status()["lease_error"] == "Connection refused"
            for each in both:
                each.connection.failure = None
            await asyncio.sleep(1.2)
            assert [each.ready for each in both].count(True) == 1
            await asyncio.sleep(5)
            assert [each.ready for each in both].count(True) == 1

    in_virtual_time(scenario())


def test_a_short_failure_of_the_api_server_changes_nothing() -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as (leader, standby):
            # The claim has another second then, of which up to 0.2 s pass until the next attempt.
            for _ in range(5):
                leader.connection.failure = standby.connection.failure = AWAY
                await asyncio.sleep(0.7)
                leader.connection.failure = standby.connection.failure = None
                await asyncio.sleep(3)
            assert [ready for _, ready in leader.history] == [True]
            assert standby.history == []

    in_virtual_time(scenario())


def test_a_write_whose_answer_is_lost_does_not_end_the_lead() -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as (leader, standby):
            leader.connection.late_answers = True
            await asyncio.sleep(0.7)
            leader.connection.late_answers = False
            await asyncio.sleep(10)
            assert [ready for _, ready in leader.history] == [True]
            assert standby.history == []

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (None, 0.0),
        (ApiError("expired", "status 410: too old"), 0.0),
        # Failures are followed by a pause, which grows up to a second.
        (ApiError("connect", "reset"), 1.0),
    ],
)
def test_watches_that_end_are_begun_again(error: ApiError | None, pause: float) -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b") as (leader, standby):
            for _ in range(20):
                server.end_watches(error)
                await asyncio.sleep(0.3)
            assert standby.connection.reads < 60
            await leader.leave()
            assert await standby.until(ready=True, within=5) < 0.5 + pause

    in_virtual_time(scenario())


def test_a_watch_that_says_nothing_does_not_make_the_standby_lead() -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as (leader, standby):
            standby.connection.silent = True
            await asyncio.sleep(1.5)
            standby.connection.silent = False
            await asyncio.sleep(10)
            assert (leader.ready, standby.ready) == (True, False)
            assert standby.history == []

    in_virtual_time(scenario())


def test_without_permission_to_watch_the_lease_is_read_instead() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b") as (leader, standby):
            standby.connection.no_watch = FORBIDDEN
            server.end_watches()
            await asyncio.sleep(10)
            assert (leader.ready, standby.ready) == (True, False)
            assert "needs create for leases" in str(standby.leadership.status()["lease_error"])
            await leader.kill()
            # A pause before it sees the last renewal, the duration, and a pause before it claims.
            assert await standby.until(ready=True, within=5) < 1.0 + 2.0 + 0.6

    in_virtual_time(scenario())


def test_without_permission_readiness_and_log_say_what_is_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        router = Router(LeaseServer(), "a")
        router.connection.failure = FORBIDDEN
        router.start()
        await asyncio.sleep(60)
        reason = router.leadership.standby_reason()
        assert reason.startswith(
            'standby: no router leads; cannot use lease models/l: status 403: leases "l" is '
            "forbidden (the Role needs create for leases in coordination.k8s.io, and get"
        )
        [errors] = [
            each
            for each in LeaseMetrics(router.leadership).collect()
            if each.name == "lora_router_lease_errors"
        ]
        assert errors.samples[0].labels == {"cause": "forbidden"}
        assert errors.samples[0].value > 50
        await router.kill()

    in_virtual_time(scenario())
    assert len(caplog.records) <= 3
    assert 'cannot use lease models/l: status 403: leases "l" is forbidden' in caplog.text


def test_a_lease_that_is_deleted_is_written_again_by_its_leader() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b") as (leader, standby):
            for _ in range(5):
                server.delete()
                await asyncio.sleep(1.3)
            assert server.lease is not None
            assert server.lease.claim.holder == "a"
            assert [ready for _, ready in leader.history] == [True]
            assert standby.history == []

    in_virtual_time(scenario())


def test_somebody_who_takes_the_lease_away_ends_the_lead() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a") as (leader,):
            server.set(Claim("somebody", 2, "", "", 5))
            assert await leader.until(ready=False, within=5) < 0.6
            assert 1.3 < await leader.until(ready=True, within=5) < 2.2

    in_virtual_time(scenario())


@pytest.mark.parametrize("duration", [0, -1, 10**9])
def test_a_duration_that_cannot_be_is_not_believed(duration: int) -> None:
    async def scenario() -> None:
        server = LeaseServer()
        server.set(Claim("dead", duration, "", "", 0))
        async with routers(server, "a") as (router,):
            await router.until(ready=True, within=3)

    in_virtual_time(scenario())


def test_changes_of_the_lead_are_counted() -> None:
    async def scenario() -> None:
        async with routers(LeaseServer(), "a", "b") as (leader, standby):
            await leader.leave()
            await standby.until(ready=True, within=5)
            for router, expected in ((leader, (0.0, 1.0, 1.0)), (standby, (1.0, 1.0, 0.0))):
                samples = {
                    sample.labels.get("to", sample.name): sample.value
                    for metric in LeaseMetrics(router.leadership).collect()
                    for sample in metric.samples
                }
                found = (samples["lora_router_leader"], samples["leader"], samples["standby"])
                assert found == expected

    in_virtual_time(scenario())


@pytest.mark.parametrize("seed", mostly_slow(range(20)))
def test_whatever_fails_two_routers_are_never_ready_at_the_same_time(seed: int) -> None:
    async def scenario() -> None:
        rng = random.Random(seed)
        server = LeaseServer()
        ready_for = 0
        async with routers(server, "a", "b", "c") as all_routers:
            for _ in range(100):
                each = rng.choice(all_routers)
                connection = each.connection
                match rng.randrange(8):
                    case 0:
                        connection.failure = AWAY
                    case 1:
                        connection.silent = True
                    case 2:
                        connection.late_answers = True
                    case 3:
                        server.end_watches()
                    case 4:
                        connection.latency = rng.uniform(0, 0.3)
                    case _:
                        connection.failure, connection.silent = None, False
                        connection.late_answers = False
                for _ in range(rng.randrange(1, 100)):
                    await asyncio.sleep(0.01)
                    ready = [router.ready for router in all_routers].count(True)
                    assert ready <= 1
                    ready_for += ready
            for each in all_routers:
                each.connection.failure = None
                each.connection.silent = each.connection.late_answers = False
                each.connection.latency = 0.01
            await asyncio.sleep(5)
            assert [router.ready for router in all_routers].count(True) == 1
        assert ready_for > 0

    in_virtual_time(scenario())


def test_watches_that_all_end_at_once_are_reported() -> None:
    async def scenario() -> None:
        server = LeaseServer()
        async with routers(server, "a", "b") as (leader, standby):
            for _ in range(100):
                server.end_watches()
                await asyncio.sleep(0.1)
            assert standby.connection.reads < 60
            error = standby.leadership.status()["lease_error"]
            assert error == "the server ends each watch immediately"
            assert standby.leadership.candidate.errors["connect"] > 10
            assert (leader.ready, standby.ready) == (True, False)
            await asyncio.sleep(2)
            assert "lease_error" not in standby.leadership.status()

    in_virtual_time(scenario())


@pytest.mark.parametrize("cause", ["conflict", "missing"])
def test_claims_that_are_always_refused_are_failures_with_growing_pauses(cause: str) -> None:
    """A namespace that does not exist answers 404, and an admission webhook may answer 409."""

    async def scenario() -> None:
        server = LeaseServer()
        router = Router(server, "a")
        refusals = []

        def refuse(claim: Claim, over: Lease | None) -> Lease:
            refusals.append(now())
            raise ApiError(cause, "status 404: namespaces not found")

        server.write = refuse  # type: ignore[method-assign]
        router.start()
        await asyncio.sleep(60)
        assert len(refusals) < 100
        status = router.leadership.status()
        assert status["lease_error"] == "status 404: namespaces not found"
        await router.kill()

    in_virtual_time(scenario())
