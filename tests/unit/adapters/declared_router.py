"""A router with declared adapters and without a network, on a clock that the test advances."""

from collections.abc import Iterable

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.first_use import FirstUse
from lora_router.adapters.listed_versions import ListedVersions
from lora_router.adapters.plain_sources import PlainSources
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templated import Templated
from lora_router.adapters.versions import Versions
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.roll import Limits
from tests.fleet import make_fleet, state_of
from tests.unit.routing.router import Router


def declared(name: str, source: str = "", **fields: object) -> DeclaredAdapter:
    return DeclaredAdapter(name, "base", source or f"s3://lora/{name}", **fields)  # type: ignore[arg-type]


class DeclaredRouter(Router):
    """Routes, and records which adapters were wanted."""

    def __init__(
        self,
        *adapters: DeclaredAdapter,
        pods: int = 2,
        fleet: Fleet | None = None,
        first_use_seconds: float = 30.0,
        max_hold_seconds: float = 5.0,
        move_seconds: float = 0.0,
        names: NamePolicy | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            fleet or make_fleet(pods, adapters=()),
            max_hold_seconds=max_hold_seconds,
            names=names,
            limits=limits,
        )
        self.declarations = Declarations()
        listed = ListedVersions(self.fleet)
        self.versions = Versions(
            self.declarations,
            self.fleet,
            self.director.names.declare,
            self.clock,
            listed=listed,
            move_seconds=move_seconds,
        )
        self.templated = Templated(
            self.declarations,
            AllowedSources(["s3://lora"]),
            self.fleet,
            self.clock,
            listed=listed,
        )
        self.first_use = FirstUse(
            self.declarations,
            self.versions,
            self.templated,
            self.fleet,
            self.director.reception,
            self.clock,
            PlainSources(self.declarations),
        )
        self.director.reception.wait_for_loads(first_use_seconds)
        self.director.names.declared = self.first_use
        self.wanted: list[str] = []
        self.first_use.on_wanted = self.wanted.append
        self.declarations.replace("file", adapters)

    def declare(self, *adapters: DeclaredAdapter) -> None:
        self.declarations.replace("file", adapters)

    def lists(self, number: int, adapters: Iterable[str]) -> None:
        """Let a pod list adapters."""
        models = [ServedModel("base"), *(ServedModel(name, "base") for name in adapters)]
        self.fleet.put_models(state_of(self.fleet, number), models)

    def shares(self, name: str) -> set[str]:
        """Return what a name stands for."""
        return set(self.director.names.rewrites.targets(name)) or {name}

    def served(self, name: str, requests: int = 100) -> dict[str, int]:
        """Return how many of some requests each version gets."""
        found: dict[str, int] = {}
        for number in range(requests):
            model = self.director.names.rewrites.target(name, f"user-{number}")
            found[model] = found.get(model, 0) + 1
        return found
