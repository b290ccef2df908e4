"""Routers whose debug pages tests read, without a network."""

import random

from lora_router.admin.debug_pages import DebugPages
from lora_router.debug.answering import Debug, Process
from lora_router.debug.fact_rows import RouterFacts
from lora_router.debug.gathering import Gathering
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import Algorithm
from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.traffic import Traffic
from tests.fleet import make_fleet
from tests.unit.routing.router import Router

WALL = 1_700_000_000.0
"""The time of day while ``ManualClock`` is where it starts, at 100 s."""


class Debugged(Router):
    """A router, its log of decisions, and what it answers to questions."""

    def __init__(
        self,
        fleet: Fleet | None = None,
        algorithm: Algorithm | None = None,
        *,
        name: str = "router-a",
        peers: tuple[str, ...] = (),
        facts: RouterFacts | None = None,
        **options: object,
    ) -> None:
        super().__init__(fleet or make_fleet(), algorithm, **options)  # type: ignore[arg-type]
        self.name = name
        self.log = DecisionLog(
            1000,
            slow_seconds=5.0,
            now=self.clock.now,
            wall=lambda: WALL,
            rng=random.Random(1),
        )
        self.director.observe()
        self.log.recall = self.director.recollection.recall
        process = Process(
            lambda: (True, "ready"),
            peers=lambda: peers,
            facts=lambda: facts or RouterFacts(),
            clock=self.clock.now,
            wall=lambda: WALL - 100.0 + self.clock.now(),
        )
        self.debug = Debug(self.director, self.log, process, Traffic(self.log, 10))

    def record(self, name: str, *, takes: float = 0.1, **fields: object) -> Decision:
        """Record a request that is answered after some seconds."""
        decision = self.log.begin(name, "/v1/completions")
        values: dict[str, object] = {"outcome": "routed", "status": 200} | fields
        for field, value in values.items():
            setattr(decision, field, value)
        self.log.decided(decision)
        self.clock.advance(takes)
        decision.answered_at = self.clock.now()
        self.log.ended(decision)
        return decision


def gathering(*routers: Debugged, silent: tuple[str, ...] = ()) -> Gathering:
    """Return what asks some routers, of which further ones do not answer."""

    async def ask(question: bytes) -> list[tuple[str, bytes]]:
        answers = [(router.name, await router.debug.answer(question)) for router in routers]
        return answers + [(name, b"") for name in silent]

    return Gathering(ask)


def pages(*routers: Debugged, silent: tuple[str, ...] = ()) -> DebugPages:
    return DebugPages(gathering(*routers, silent=silent))
