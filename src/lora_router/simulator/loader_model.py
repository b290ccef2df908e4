"""What loads adapters in a simulated fleet: the loader that serves, with calls to simulated pods.

Each router has a loader, and that of the first router loads. What a call or a withdrawal changes in
a pod's list is known to all routers at once.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Protocol

from lora_router.adapters.calls import Call, Result
from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.demand import DemandMeter
from lora_router.adapters.first_use import FirstUse
from lora_router.adapters.listed_versions import ListedVersions
from lora_router.adapters.loader import Loader
from lora_router.adapters.plain_sources import PlainSources
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templated import Templated
from lora_router.adapters.versions import Versions
from lora_router.fleet.pod_state import PodState
from lora_router.simulator.events import EventQueue
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.router_model import RouterModel
from lora_router.simulator.trace import BASE_MODEL

_CALL_SECONDS = 0.005
"""What a call takes beside the load."""


class Simulation(Protocol):
    """The simulation that it is a part of."""

    @property
    def pods(self) -> Sequence[PodModel]:
        """The pods in the order of their numbers. Another one replaces a pod that fails."""

    @property
    def routers(self) -> Sequence[RouterModel]:
        """The routers in the order of their places. Another one replaces a router that dies."""


class LoaderModel:
    """The loaders of a simulation, and the lists of its pods."""

    def __init__(self, simulation: Simulation, options: FleetOptions, events: EventQueue) -> None:
        self.simulation = simulation
        self.events = events
        self.loads: Counter[str] = Counter()
        """Loads that ended, by outcome."""
        self._options = options
        self._declared = [
            DeclaredAdapter(name, BASE_MODEL, f"/adapters/{name}") for name in options.adapters
        ]
        self._listed: dict[int, dict[str, None]] = {}
        """What each pod lists."""
        self._withdrawn: dict[int, set[str]] = {}
        self._calls: dict[int, Callable[[Result], None]] = {}
        """What to call when a pod has done a call."""

    def equip(self, router: RouterModel) -> None:
        """Give a router a loader."""
        clock, director = router.clock, router.director
        declarations = Declarations()
        listed = ListedVersions(router.fleet)
        versions = Versions(
            declarations, router.fleet, director.names.declare, clock, listed=listed
        )
        templated = Templated(declarations, AllowedSources(()), router.fleet, clock, listed=listed)
        first_use = FirstUse(
            declarations,
            versions,
            templated,
            router.fleet,
            director.reception,
            clock,
            PlainSources(declarations),
        )
        declarations.replace("file", self._declared)
        director.reception.wait_for_loads(self._options.max_hold_seconds)
        director.names.declared = first_use
        meter = DemandMeter(router.fleet, clock, first_use.waiting, first_use.held)
        loader = Loader(
            router.fleet,
            declarations,
            Calls(self, router),
            clock,
            demand=meter.demand,
            is_held=first_use.is_held,
            is_loader=lambda: self._loads(router),
            waits=first_use,
        )
        first_use.on_wanted = loader.want

        def start() -> None:
            first_use.start()
            meter.start()
            loader.start()

        clock.call_later(0.0, start)

    def served_by(self, number: int) -> Iterable[str]:
        """Return what requests for a pod may ask for."""
        withdrawn = self._withdrawn[number]
        return [name for name in self._listed[number] if name not in withdrawn]

    def started(self, number: int, preloaded: Iterable[str]) -> None:
        """Learn that a pod has started, or another one in its place, and what it lists."""
        self._listed[number] = dict.fromkeys(preloaded)
        self._withdrawn[number] = set()
        lost = self._calls.pop(number, None)
        if lost is not None:
            lost(Result("unreachable", 0.0))

    def call(self, call: Call, on_done: Callable[[Result], None]) -> None:
        """Let a pod do what a loader asks for."""
        number = _number(call.state)
        pod, began = self.simulation.pods[number], self.events.time
        self._calls[number] = on_done

        def done() -> None:
            if self._calls.get(number) is not on_done:
                return
            del self._calls[number]
            self._withdrawn[number].discard(call.name)
            self.tell(number)
            on_done(Result("done", self.events.time - began))

        def loaded() -> None:
            self._listed[number][call.name] = None
            self.loads[call.action] += 1
            done()

        if call.action == "load":
            pod.load_adapter(call.name, loaded)
        else:
            self._listed[number].pop(call.name, None)
            pod.unload_adapter(call.name)
            self.events.call_later(_CALL_SECONDS, done)

    def withdraw(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of all routers' lists of a pod."""
        self._withdrawn[_number(state)].update(names)
        self.tell(_number(state))

    def restore(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters into all routers' lists of a pod again."""
        self._withdrawn[_number(state)].difference_update(names)
        self.tell(_number(state))

    def tell(self, number: int) -> None:
        """Tell all routers what a pod lists."""
        for router in self.simulation.routers:
            router.list_models(number, self.served_by(number))

    def _loads(self, router: RouterModel) -> bool:
        alive = (each for each in self.simulation.routers if not each.clock.stopped)
        return next(alive, None) is router


class Calls:
    """The calls of one loader (``LoadsAdapters``)."""

    def __init__(self, model: LoaderModel, router: RouterModel) -> None:
        self._model = model
        self._router = router

    def start(self, call: Call, on_done: Callable[[Result], None]) -> None:
        """Begin a call."""
        clock = self._router.clock
        self._model.call(call, lambda result: clock.run(partial(on_done, result)))

    def withdraw(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of the lists of a pod."""
        self._model.withdraw(state, names)

    def restore(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters into the lists of a pod again."""
        self._model.restore(state, names)

    def read_again(self, state: PodState) -> None:
        """Read the list of a pod."""
        self._model.tell(_number(state))


def _number(state: PodState) -> int:
    return int(state.pod.name.rpartition("-")[2])
