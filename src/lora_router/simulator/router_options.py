"""The options of ``lora-router simulate`` about routers, in place of a scenario's keys."""

from dataclasses import dataclass, replace

from lora_router.simulator.fleet_options import FleetOptions, RouterEvent, RouterTrouble
from lora_router.simulator.key_kinds import Number, Whole, WrongValueError
from lora_router.simulator.knowledge import SCRAPES, Knowledge
from lora_router.simulator.router_keys import LOSS, MILLISECONDS, MOST_ROUTERS

_SECONDS = Number(0, 1_000_000)
_WAIT = Number(0.001, 86_400)


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """How many routers there are, and what is between them. ``None``: as in the scenario."""

    routers: int = 1
    knowledge: Knowledge = SCRAPES
    """What each router knows of the requests of the others."""
    delay_ms: float | None = None
    jitter_ms: float | None = None
    loss: float | None = None
    late: float | None = None
    overload: str | None = None
    """The setting of this name: ``shed`` or ``hold``."""
    max_expected_wait_seconds: float | None = None
    """The setting of this name."""
    partition_seconds: float | None = None
    """How long no message passes between any two routers, from the middle of the trace."""

    def check(self) -> None:
        """Check what the command line does not.

        Raises:
            WrongValueError: A number is out of its bounds, or would have no effect.
        """
        _read("--routers", Whole(1, MOST_ROUTERS), self.routers)
        if self.overload not in (None, "shed", "hold"):
            raise WrongValueError(f"--overload: must be shed or hold, not {self.overload}")
        if self.max_expected_wait_seconds is not None:
            _read("--max-wait", _WAIT, self.max_expected_wait_seconds)
        for flag, kind, value in (
            ("--peer-delay", MILLISECONDS, self.delay_ms),
            ("--peer-jitter", MILLISECONDS, self.jitter_ms),
            ("--peer-loss", LOSS, self.loss),
            ("--peer-late", LOSS, self.late),
            ("--partition", _SECONDS, self.partition_seconds),
        ):
            if value is None:
                continue
            _read(flag, kind, value)
            if self.routers == 1 or self.knowledge is not Knowledge.PEERING:
                raise WrongValueError(
                    f"{flag}: has an effect only with --routers 2 or more and --peers peering"
                )

    def applied_to(self, fleet: FleetOptions, seconds: float) -> FleetOptions:
        """Return a scenario's fleet with these options.

        Args:
            fleet: The fleet.
            seconds: Length of the trace.
        """
        wire = fleet.wire
        if self.delay_ms is not None:
            wire = replace(wire, delay_seconds=self.delay_ms / 1000)
        if self.jitter_ms is not None:
            wire = replace(wire, jitter_seconds=self.jitter_ms / 1000)
        if self.loss is not None:
            wire = replace(wire, loss=self.loss)
        if self.late is not None:
            wire = replace(wire, late=self.late)
        events = fleet.router_events
        if self.partition_seconds is not None:
            events += tuple(
                RouterEvent(RouterTrouble.PARTED, router, seconds / 2, self.partition_seconds)
                for router in range(self.routers)
            )
        overload = fleet.overload
        if self.overload is not None:
            overload = replace(overload, sheds=self.overload == "shed")
        if self.max_expected_wait_seconds is not None:
            overload = replace(overload, max_expected_wait_seconds=self.max_expected_wait_seconds)
        return replace(
            fleet, knowledge=self.knowledge, wire=wire, router_events=events, overload=overload
        )


def _read(flag: str, kind: Whole | Number, value: float) -> None:
    try:
        kind.read(value)
    except WrongValueError as error:
        raise WrongValueError(f"{flag}: {error}") from None
