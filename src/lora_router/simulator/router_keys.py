"""The keys of a scenario file about routers: settings, the network between them, and faults."""

from dataclasses import dataclass

from lora_router.routing.overload import Overload
from lora_router.simulator.fleet_options import RouterTrouble
from lora_router.simulator.key_kinds import Number, Whole, WordOf
from lora_router.simulator.key_records import key
from lora_router.simulator.network import WireOptions

_WIRE = WireOptions()
_OVERLOAD = Overload()
SHARE = Number(0, 1)
MILLISECONDS = Number(0, 10_000)
LOSS = Number(0, 0.9)
MOST_ROUTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WireKeys:
    """``wire``: what happens to messages between routers."""

    delay_ms: float = key(
        MILLISECONDS, "Time that a message takes.", default=_WIRE.delay_seconds * 1000
    )
    jitter_ms: float = key(
        MILLISECONDS,
        "The most that is added to it, evenly. Messages of one stream stay in order.",
        default=_WIRE.jitter_seconds * 1000,
    )
    loss: float = key(
        LOSS,
        "Share of the messages that never arrive, although later ones do, as on a channel that "
        "guarantees nothing.",
        default=_WIRE.loss,
    )
    late: float = key(
        LOSS,
        "Share of the packets that get lost and are sent again, by TCP, after 0.2 s, 0.4 s and so "
        "on. The messages behind them wait.",
        default=_WIRE.late,
    )

    def options(self) -> WireOptions:
        """Return the same in seconds."""
        return WireOptions(self.delay_ms / 1000, self.jitter_ms / 1000, self.loss, self.late)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterKeys:
    """``router``: settings of the routers, by the names that they have there."""

    max_hold_seconds: float = key(
        Number(0, 1_000_000),
        "How long a request may be held. Then it is sent to a pod, full or not. A router that "
        "serves has a lower default.",
        default=600.0,
    )
    closed_slots_share: float = key(
        SHARE,
        "Share of the slots that may be closed at the same time for adapters that wait.",
        default=_OVERLOAD.closed_slots_share,
    )
    overload: str = key(
        WordOf(("hold", "shed")),
        "What is done with a request that would wait for too long: it waits, or it is refused.",
        default="shed",
    )
    max_expected_wait_seconds: float = key(
        Number(0.001, 86_400),
        "With `shed`: the longest expected wait above which there is overload.",
        default=_OVERLOAD.max_expected_wait_seconds,
    )
    max_requests_per_pod: int | None = key(
        Whole(1, 1_000_000),
        "The most requests in flight on a pod. Absent: any number.",
        default=None,
    )
    max_seconds_per_token: float | None = key(
        Number(0.001, 60),
        "The longest usual time between two tokens on a pod that gets further requests. Absent: "
        "any time.",
        default=None,
    )

    def options(self) -> Overload:
        """Return how a router treats requests for which there is no room."""
        return Overload(
            self.closed_slots_share,
            sheds=self.overload == "shed",
            max_expected_wait_seconds=self.max_expected_wait_seconds,
            max_requests_per_pod=self.max_requests_per_pod,
            max_seconds_per_token=self.max_seconds_per_token,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterEventKeys:
    """One of ``router_events``: something that happens to a router."""

    event: str = key(
        WordOf(tuple(RouterTrouble)),
        "`killed`: it dies, and a new router begins in its place at the end; its held requests are "
        "asked of other routers, those on pods continue. `stalled`: its event loop stands still; "
        "requests, messages and timers wait. `parted`: no message passes between it and other "
        "routers.",
    )
    router: int = key(Whole(0, MOST_ROUTERS - 1), "Number of the router, from 0.")
    at: float = key(SHARE, "When it begins, as a share of the duration.")
    seconds: float = key(Number(0, 1_000_000), "How long it lasts.")
