"""The keys of a scenario file about what loads adapters."""

from dataclasses import dataclass

from lora_router.simulator.fleet_options import LoaderOptions
from lora_router.simulator.key_kinds import Number
from lora_router.simulator.key_records import key

_LOADER = LoaderOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderKeys:
    """``loader``: what loads adapters on pods."""

    before_seconds: float = key(
        Number(0, 100_000),
        "How long it loads before the first request.",
        default=_LOADER.before_seconds,
    )

    def options(self) -> LoaderOptions:
        """Return the same for a fleet."""
        return LoaderOptions(self.before_seconds)
