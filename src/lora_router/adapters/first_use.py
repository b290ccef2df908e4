"""First use: has adapters loaded for which requests wait, here and in other routers.

It is what routing knows of declared adapters (``routing.declared_names``), and what the loader
knows of requests that wait.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import BY_DEMAND, plain_name
from lora_router.adapters.plain_sources import PlainSources
from lora_router.adapters.templated import Templated
from lora_router.adapters.versions import Versions
from lora_router.clock import Clock
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.routing.declared_names import DeclaredName
from lora_router.routing.reception import Reception
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.selection import EVERY_POD, Selection

TICK_SECONDS = 0.25
"""Time between two looks at what other routers hold."""
MAX_FAILED = 4096
MAX_NARROW = 256
"""Filters and subsets of which it is remembered that an adapter cannot be loaded for them. Clients
choose them."""
MAX_SELECTIONS = 16
"""Queues of an adapter that have a say in where it is loaded, those that came first. If there are
more, requests of the others wait in vain, until their time is up."""
_NO_BASES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Failed:
    """An adapter that cannot be loaded."""

    detail: str
    until: float


class FirstUse:
    """The declared adapters of one router, for its requests and its loader."""

    def __init__(
        self,
        declarations: Declarations,
        versions: Versions,
        templated: Templated,
        fleet: Fleet,
        reception: Reception,
        clock: Clock,
        sources: PlainSources,
    ) -> None:
        """Create it. ``start`` begins to look at what other routers hold.

        Args:
            declarations: The adapters.
            versions: Their versions.
            templated: Declares those of templates.
            fleet: The pods.
            reception: Holds requests.
            clock: The time.
            sources: Compares the sources of adapters that were loaded before.
        """
        self._sources = sources
        self._declarations = declarations
        self.versions = versions
        """Which version requests get."""
        self._templated = templated
        self._fleet = fleet
        self._reception = reception
        self._clock = clock
        self._failed: dict[str, _Failed] = {}
        self._narrow: dict[tuple[str, Selection], _Failed] = {}
        """Adapters that cannot be loaded where some requests may go, and can be elsewhere."""
        self._catalogs: dict[str, Catalog] | None = None
        self._is_running = False
        self.on_wanted: Callable[[str], None] = _nothing
        """Called with the served name of an adapter for which a request waits. It is called again
        while requests of other routers wait."""
        self.on_failed: Callable[[str, str, float], None] = _nothing
        """Called with the arguments of ``failed``, so that other routers hear of it."""
        declarations.subscribe_to_names(self._declared)

    def start(self) -> None:
        """Begin to look at what other routers hold."""
        if not self._is_running:
            self._is_running = True
            self._tick()

    def stop(self) -> None:
        """Stop."""
        self._is_running = False

    # For routing (``declared_names.DeclaredNames``)

    def find(self, model: str) -> DeclaredName | None:
        """Return the adapter that pods are asked for by a name; ``None``: none is declared."""
        adapter = self.versions.declared_as(model)
        problem = None
        if adapter is None:
            if self._declarations.get(model) is not None:
                return None  # An older version, which no pod has any more.
            adapter = self._templated.find(model)
            if adapter is None:
                return None
        if adapter.is_templated and not self._templated.may_wait(adapter.name):
            problem = Refused(Refusal.TOO_MANY_HELD, model=model)
        failed = self._failed.get(model)
        if failed is not None:
            problem = self._refused(adapter.name, failed) or problem
        admits = None if adapter.pods == BY_DEMAND else adapter.pods.admits
        narrow = None if not self._narrow else partial(self._narrow_problem, model, adapter.name)
        return DeclaredName(adapter.name, adapter.base_model, admits, problem, narrow)

    def want(self, model: str) -> None:
        """Have an adapter loaded for which a request waits, or waited in vain."""
        if self._templated.want(plain_name(model)):
            self.on_wanted(model)

    def declared_instead(self, model: str) -> str | None:
        """Return the name under which pods list the declared version of an adapter.

        Args:
            model: The name of another version, which is declared no longer.
        """
        adapter = self._declarations.named(plain_name(model))
        return None if adapter is None or adapter.served_name == model else adapter.served_name

    def other_versions(self, model: str) -> Collection[str]:
        """Return the names under which pods list other versions of an adapter."""
        return self.versions.others(model)

    def catalog(self, base_model: str) -> Catalog | None:
        """Return the names by which clients may ask for the adapters of a base model."""
        if self._catalogs is None:
            names: dict[str, dict[str, str | None]] = {}
            loads = self._reception.first_use is not None
            for adapter in self._declarations:
                base = adapter.base_model
                if loads or adapter.version:
                    names.setdefault(base, {})[adapter.name] = base
                for alias in adapter.aliases:
                    names.setdefault(base, {})[alias] = base
            self._catalogs = {
                base: Catalog(_NO_BASES, MappingProxyType(found)) for base, found in names.items()
            }
        return self._catalogs.get(base_model)

    # For the loader

    def failed(self, served: str, detail: str, seconds: float) -> None:
        """Refuse requests for an adapter, those that wait included, because it cannot be loaded.

        Args:
            served: Its served name.
            detail: Why, for clients. It names no source, and nothing that a pod said.
            seconds: For how long requests are refused at once.
        """
        self.heard(served, detail, seconds)
        self.on_failed(served, detail, seconds)

    def heard(self, served: str, detail: str, seconds: float) -> None:
        """Do the same because another router says so. The arguments are those of ``failed``."""
        self._failed.pop(served, None)
        if len(self._failed) >= MAX_FAILED:
            del self._failed[next(iter(self._failed))]
        self._failed[served] = _Failed(detail, self._clock.now() + seconds)
        self._templated.failed(plain_name(served))
        self._reception.room.expire_queues_of(served)

    def failed_for(
        self, served: str, selections: Collection[Selection], detail: str, seconds: float
    ) -> None:
        """Refuse only requests that may go to some pods, none of which can load an adapter.

        The other arguments are those of ``failed``. Other routers do not hear of it: they wait.
        """
        for selection in selections:
            key = served, selection
            self._narrow.pop(key, None)
            if len(self._narrow) >= MAX_NARROW:
                del self._narrow[next(iter(self._narrow))]
            self._narrow[key] = _Failed(detail, self._clock.now() + seconds)
        self._reception.room.expire_queues_of(served, selections)

    def loaded(self, served: str) -> None:
        """Note that an adapter has been loaded: forget that it could not be."""
        self._forget_failure(served)
        self._sources.loaded(served)

    def selections(self, served: str) -> Collection[Selection]:
        """Return to which pods requests for an adapter may go that wait, in the order they came.

        A client's filter or the gateway's subset may exclude pods. It is not known what excludes
        them for requests that wait in other routers.
        """
        here = self._reception.room.roll.selections_of(served, MAX_SELECTIONS)
        is_held = any(served in held for held in self._fleet.peers.held())
        return {**dict.fromkeys(here), EVERY_POD: None} if is_held or not here else here

    def selects(self, selection: Selection, state: PodState) -> bool:
        """Return whether requests may go to a pod."""
        return self._reception.finder.selects(state, *selection)

    def waiting(self) -> frozenset[str]:
        """Return the served names of adapters for which requests wait, and that no pod lists."""
        names = (*self._reception.room.roll.models, *self._held_by_peers())
        return frozenset(name for name in names if self._is_wanted(name))

    def held(self) -> Collection[str]:
        """Return the models for which requests wait in this router."""
        return self._reception.room.roll.models

    def is_held(self, served: str) -> bool:
        """Return whether requests for an adapter wait, in this router or in another one."""
        return served in self._reception.room.roll.models or any(
            served in held for held in self._fleet.peers.held()
        )

    def _declared(self, names: Collection[str]) -> None:
        self._catalogs = None
        for name in names:
            adapter = self._declarations.named(name)
            self._forget_failure(name)
            if adapter is not None:
                self._forget_failure(adapter.served_name)
        self._release_those_who_wait(names)

    def _release_those_who_wait(self, names: Collection[str]) -> None:
        """Decide anew requests for adapters that are declared in another way, or no longer.

        The version for which they wait is loaded no more. Those that wait for a slot of a pod that
        has it get one there.
        """
        for served in tuple(self._reception.room.roll.models):
            if (
                plain_name(served) in names
                and not self._fleet.serving(served).pods
                and self.versions.declared_as(served) is None
            ):
                self._reception.room.expire_queues_of(served)

    def _forget_failure(self, served: str) -> None:
        self._failed.pop(served, None)
        for key in [key for key in self._narrow if key[0] == served]:
            del self._narrow[key]

    def _refused(self, name: str, failed: _Failed) -> Refused | None:
        """Return why requests are refused; ``None``: that was long enough ago."""
        seconds = failed.until - self._clock.now()
        if seconds <= 0:
            return None
        refusal = Refusal.ADAPTER_NOT_LOADED
        return Refused(refusal, model=name, detail=failed.detail, wait=seconds)

    def _narrow_problem(self, served: str, name: str, selection: Selection) -> Refused | None:
        failed = self._narrow.get((served, selection))
        return None if failed is None else self._refused(name, failed)

    def _held_by_peers(self) -> set[str]:
        return {name for held in self._fleet.peers.held() for name in held}

    def _is_wanted(self, name: str) -> bool:
        return not self._fleet.serving(name).pods and self.find(name) is not None

    def _tick(self) -> None:
        if not self._is_running:
            return
        self._clock.call_later(TICK_SECONDS, self._tick)
        wanted = [
            (share.seconds, name)
            for held in self._fleet.peers.held()
            for name, share in held.items()
            if self._is_wanted(name)
        ]
        for _, name in sorted(wanted, reverse=True):
            self.want(name)


def _nothing(*_arguments: object) -> None:
    """Do nothing."""
