"""What pods should serve no longer stays while requests wait for a slot of it."""

from lora_router.adapters.steps import HELD_SECONDS
from lora_router.routing.outcome import Routed
from tests.fleet import make_metrics, state_of
from tests.unit.adapters.declared_router import declared
from tests.unit.adapters.loading_router import LoadingRouter


class TestOutdatedWhileRequestsWait:
    """Requests wait for a slot of an adapter that pods should serve no longer."""

    def router(self) -> tuple[LoadingRouter, Routed]:
        """Return a router whose only slot is taken, and the request in it."""
        router = LoadingRouter(declared("busy"), declared("sql", version="1"), pods=1, memory=4)
        assert router.loaded(1) == ["busy", "sql@1"]
        router.fleet.put_metrics(state_of(router.fleet, 1), make_metrics(max_lora=1))
        router.director.reception.max_hold_seconds = 300.0
        return router, router.routed("busy")

    def test_an_older_version_stays_until_they_were_served(self) -> None:
        router, busy = self.router()
        router.held("sql")
        router.declare(declared("busy"), declared("sql", version="2"))
        router.clock.advance(60.0)
        assert set(router.loaded(1)) == {"busy", "sql@1", "sql@2"}

        busy.reservation.release()
        [(_, outcome)] = router.late
        assert isinstance(outcome, Routed)
        assert outcome.model == "sql@1"
        outcome.reservation.release()
        router.clock.advance(30.0)
        assert set(router.loaded(1)) == {"busy", "sql@2"}

    def test_an_adapter_that_is_removed_stays_until_they_were_served(self) -> None:
        router, busy = self.router()
        router.held("sql")
        router.declare(declared("busy"))
        router.clock.advance(HELD_SECONDS / 2)
        assert "sql@1" in router.loaded(1)

        busy.reservation.release()
        [(_, outcome)] = router.late
        assert isinstance(outcome, Routed)
        outcome.reservation.release()
        router.clock.advance(5.0)
        assert router.loaded(1) == ["busy"]

    def test_an_adapter_that_is_removed_does_not_stay_for_ever(self) -> None:
        router, _ = self.router()
        router.held("sql")
        router.declare(declared("busy"))
        router.clock.advance(HELD_SECONDS + 10.0)
        assert router.loaded(1) == ["busy"]
