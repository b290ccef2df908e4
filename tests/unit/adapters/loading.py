"""A fleet whose pods take loads, for tests of the loader: no I/O, and a manual clock."""

import random
from collections.abc import Callable, Collection, Iterable

from lora_router.adapters.calls import Call, Outcome, Result
from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.demand import Demand
from lora_router.adapters.dispatch import LoaderOptions
from lora_router.adapters.loader import Loader
from lora_router.adapters.planner import MakesPlans
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.routing.selection import EVERY_POD, Selection
from tests.fleet import ManualClock, make_pod, state_of


def adapter(name: str, **changes: object) -> DeclaredAdapter:
    """Return a declared adapter of the model ``base``."""
    values: dict[str, object] = {"name": name, "base_model": "base", "source": f"/lora/{name}"}
    return DeclaredAdapter(**(values | changes))  # type: ignore[arg-type]


def adapters(count: int) -> list[DeclaredAdapter]:
    """Return ``a0`` and so on."""
    return [adapter(f"a{number}") for number in range(count)]


class FakePods:
    """Pods that load what they are told, in ``seconds``. It is what the loader calls."""

    def __init__(self, fleet: Fleet, clock: ManualClock) -> None:
        self.fleet = fleet
        self.clock = clock
        self.seconds = 0.1
        self.listed: dict[PodState, dict[str, str]] = {}
        self.withdrawn: dict[PodState, set[str]] = {}
        self.calls: list[Call] = []
        self.open: list[Call] = []
        self.most_running = 0
        self.read: list[PodState] = []
        self.answer: Callable[[Call], Outcome] = lambda _: "done"

    def start(self, call: Call, on_done: Callable[[Result], None]) -> None:
        self.calls.append(call)
        assert all(each.state is not call.state for each in self.open), "one call for each pod"
        self.open.append(call)
        self.most_running = max(len(self.open), self.most_running)
        self.clock.call_later(self.seconds, lambda: self._end(call, on_done))

    def withdraw(self, state: PodState, names: Collection[str]) -> None:
        self.withdrawn.setdefault(state, set()).update(names)
        self.show(state)

    def restore(self, state: PodState, names: Collection[str]) -> None:
        self.withdrawn.setdefault(state, set()).difference_update(names)
        self.show(state)

    def read_again(self, state: PodState) -> None:
        self.read.append(state)

    def show(self, state: PodState) -> None:
        """Put a pod's list into the fleet."""
        withdrawn = self.withdrawn.get(state, set())
        listed = [name for name in self.listed.setdefault(state, {}) if name not in withdrawn]
        models = [ServedModel("base"), *(ServedModel(name, "base") for name in listed)]
        self.fleet.put_models(state, models)

    def names(self, state: PodState) -> list[str]:
        """Return what a pod has loaded."""
        return sorted(self.listed.setdefault(state, {}))

    def _end(self, call: Call, on_done: Callable[[Result], None]) -> None:
        self.open.remove(call)
        outcome = self.answer(call)
        listed = self.listed.setdefault(call.state, {})
        if outcome == "done" and call.is_doubted:
            outcome = "already"
        if outcome == "done" and call.action == "load":
            listed[call.name] = call.source
        elif outcome == "done":
            del listed[call.name]
            self.withdrawn.setdefault(call.state, set()).discard(call.name)
        if self.fleet.get(call.state.pod.name) is call.state:
            self.show(call.state)
        on_done(Result(outcome, self.seconds, "" if outcome == "done" else f"it is {outcome}"))


class FakeWaits:
    """What holds requests for adapters that no pod lists."""

    def __init__(self) -> None:
        self.refused: list[tuple[str, str]] = []
        self.barred: set[str] = set()
        """Pods to which the requests may not go."""
        self.served: list[str] = []

    def failed(self, served: str, detail: str, seconds: float) -> None:
        assert seconds >= 0
        self.refused.append((served, detail))

    def loaded(self, served: str) -> None:
        self.served.append(served)

    def failed_for(
        self, served: str, selections: Collection[Selection], detail: str, seconds: float
    ) -> None:
        self.failed(served, detail, seconds)

    def selections(self, served: str) -> Collection[Selection]:
        return (EVERY_POD,)

    def selects(self, selection: Selection, state: PodState) -> bool:
        return state.pod.name not in self.barred


class Loading:
    """A fleet with a loader."""

    def __init__(
        self,
        pods: int = 2,
        *,
        memory: int | None = 4,
        declared: Iterable[DeclaredAdapter] = (),
        listed: Iterable[str] = (),
        options: LoaderOptions | None = None,
        is_loader: Callable[[], bool] = lambda: True,
        planner: MakesPlans | None = None,
        may_leave: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.looks = 0
        self.waits = FakeWaits()
        self.clock = ManualClock()
        self.fleet = Fleet()
        self.declarations = Declarations(in_place=options is not None and options.in_place)
        self.declarations.replace("file", declared)
        self.pods = FakePods(self.fleet, self.clock)
        self.demand = Demand()
        self.held: set[str] = set()
        self.memory = memory
        for number in range(1, pods + 1):
            self.join(number, listed)
        self.loader = Loader(
            self.fleet,
            self.declarations,
            self.pods,
            self.clock,
            options,
            demand=lambda: self.demand,
            is_held=self.held.__contains__,
            may_leave=may_leave,
            is_loader=is_loader,
            look=self._look,
            waits=self.waits,
            planner=planner,
            rng=random.Random(1),
        )

    def join(self, number: int, listed: Iterable[str] = ()) -> PodState:
        """Add the pod ``pod-N``, whose page and list have been read."""
        spec = LoraSpec(host_memory=self.memory)
        self.fleet.upsert(make_pod(number, lora=spec))
        state = state_of(self.fleet, number)
        self.pods.listed[state] = dict.fromkeys(listed, "")
        self.pods.show(state)
        self.scrape(state)
        return state

    def scrape(self, state: PodState, *, started_at: float = 1.0, slots: int = 1) -> None:
        """Read the page of a pod without requests."""
        nobody: frozenset[str] = frozenset()
        lora = LoraActivity(max_lora=slots, running=nobody, waiting=nobody, updated_at=1.7e9)
        metrics = PodMetrics(
            scraped_at=self.clock.now(),
            running=0.0,
            waiting=0.0,
            lora=lora,
            started_at=started_at,
        )
        self.fleet.put_metrics(state, metrics)

    def _look(self) -> None:
        self.looks += 1

    def state(self, number: int) -> PodState:
        return state_of(self.fleet, number)

    def run(self, seconds: float) -> None:
        """Let the loader work."""
        self.loader.start()
        self.clock.advance(seconds)

    def loaded(self, number: int) -> list[str]:
        """Return what a pod has loaded."""
        return self.pods.names(self.state(number))

    def everywhere(self) -> set[str]:
        """Return what at least one pod has loaded."""
        return {name for state in self.fleet for name in self.pods.names(state)}
