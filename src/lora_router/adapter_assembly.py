"""Makes the parts that know which adapters are declared, from the settings.

In a router with workers, the parent reads the declarations and loads, and workers hold requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.first_use import FirstUse
from lora_router.adapters.listed_versions import ListedVersions
from lora_router.adapters.plain_sources import PlainSources
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templated import Templated
from lora_router.adapters.versions import Versions
from lora_router.clock import Clock
from lora_router.config.settings import Settings
from lora_router.discovery.adapters_file import AdaptersFile
from lora_router.discovery.adapters_list import AdaptersList
from lora_router.fleet.fleet import Fleet
from lora_router.peering.failed_loads import FailedLoads
from lora_router.peering.hub import Hub
from lora_router.routing.director import Director
from lora_router.scrape.breaks import with_breaks
from lora_router.supervision import Supervisor

PAUSE = 2.0
"""A change of many declarations pauses so many times as long as it works: it takes a third of one
CPU. A higher value lets adapters wait longer that were just declared."""


@dataclass(frozen=True, slots=True)
class DeclaredParts:
    """What is declared in one process."""

    declarations: Declarations
    allowed: AllowedSources
    templated: Templated
    sources: PlainSources
    listed: ListedVersions

    async def declare(self, found: AdaptersList) -> None:
        """Use what the file declares."""
        await self.declare_list("file", found.adapters)
        await with_breaks(self.templated.replace_in_steps(found.templates), pause=PAUSE)

    async def declare_list(self, origin: str, adapters: Sequence[DeclaredAdapter]) -> None:
        """Use what one origin declares."""
        await with_breaks(self.declarations.replace_in_steps(origin, adapters), pause=PAUSE)


def make_declared(settings: Settings, fleet: Fleet, clock: Clock) -> DeclaredParts | None:
    """Return what will know the declared adapters, or ``None`` if none may be declared."""
    if not settings.loads_adapters:
        return None
    declarations = Declarations(in_place=settings.adapter_update == "in-place")
    allowed = AllowedSources(settings.adapter_sources)
    listed = ListedVersions(fleet)
    templated = Templated(declarations, allowed, fleet, clock, listed=listed)
    return DeclaredParts(declarations, allowed, templated, PlainSources(declarations), listed)


def make_adapters_file(
    settings: Settings, declared: DeclaredParts | None, supervisor: Supervisor
) -> AdaptersFile | None:
    """Return what reads the file of adapters, or ``None`` if there is none."""
    if declared is None or settings.adapters_file is None:
        return None
    return AdaptersFile(
        settings.adapters_file, declared.allowed, declared.declare, supervisor=supervisor
    )


def make_first_use(
    settings: Settings, declared: DeclaredParts | None, director: Director, clock: Clock
) -> FirstUse | None:
    """Let a director route by the names of declared adapters, and hold requests for them."""
    if declared is None:
        return None
    names = director.names
    versions = Versions(
        declared.declarations,
        director.fleet,
        names.declare,
        clock,
        listed=declared.listed,
        move_seconds=settings.adapter_move_seconds,
    )
    first_use = FirstUse(
        declared.declarations,
        versions,
        declared.templated,
        director.fleet,
        director.reception,
        clock,
        declared.sources,
    )
    director.reception.wait_for_loads(settings.first_use_seconds)
    names.declared = first_use
    return first_use


def make_versions(
    settings: Settings, declared: DeclaredParts, fleet: Fleet, clock: Clock
) -> Versions:
    """Return what knows which versions get requests, in a process that routes none."""
    return Versions(
        declared.declarations,
        fleet,
        lambda _name, _targets: None,
        clock,
        listed=declared.listed,
        move_seconds=settings.adapter_move_seconds,
    )


def share_failed_loads(first_use: FirstUse | None, hub: Hub | None) -> None:
    """Tell peers which adapters cannot be loaded, and let requests heed what they tell."""
    if first_use is not None and hub is not None:
        first_use.on_failed = FailedLoads(hub, first_use).tell
