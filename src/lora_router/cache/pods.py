"""The pod-metrics cache: the fleet as the router knows it at this moment."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lora_router.cache.ledger import Ledger
from lora_router.cache.metrics import PodMetrics
from lora_router.cache.pod import Pod
from lora_router.cache.state import PodState


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of a pod's ``/v1/models``."""

    name: str
    base: str | None = None
    """The base model's name if this is an adapter (``parent`` in vLLM), else ``None``."""


@dataclass(frozen=True, slots=True)
class ModelPods:
    """The ready pods that serve a model."""

    pods: tuple[PodState, ...]
    is_adapter: bool


class PodCache:
    """Pods by name, with an index from model names to the ready pods that serve them.

    The index is forgotten whenever pods or their models change and made again on demand, so a
    request costs one look-up and not a walk over the fleet.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.synced = False
        """Whether discovery has delivered its first full list. Discovery sets it."""
        self._states: dict[str, PodState] = {}
        self._usual_slots: int | None = None
        """Adapter slots of the pod scraped last: what a new pod is taken to have until it says."""
        self._ready: tuple[PodState, ...] | None = None
        self._by_model: dict[str, ModelPods] = {}
        self._listeners: list[Callable[[Collection[PodState]], None]] = []
        self._metrics_listeners: list[Callable[[PodState], None]] = []

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[PodState]:
        return iter(tuple(self._states.values()))

    def get(self, name: str) -> PodState | None:
        """Return a pod's state, or ``None`` if no such pod is known."""
        return self._states.get(name)

    def subscribe(self, listener: Callable[[Collection[PodState]], None]) -> None:
        """Have ``listener`` called after each change of pods or of what they serve.

        It is given the states that came, left or changed; ``get`` tells which of them are there.
        """
        self._listeners.append(listener)

    def subscribe_metrics(self, listener: Callable[[PodState], None]) -> None:
        """Have ``listener`` called after each new snapshot, with the pod it is of."""
        self._metrics_listeners.append(listener)

    # What discovery says

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take a full list of the fleet: new pods join, changed ones are updated, others leave."""
        wanted = {pod.name: pod for pod in pods}
        self.synced = True
        self.update(wanted.values(), gone=self._states.keys() - wanted.keys())

    def update(self, pods: Iterable[Pod], gone: Iterable[str] = ()) -> None:
        """Take the new descriptions of some pods, and forget others by name.

        Open requests of a pod that left run on, counted in the state they hold.
        """
        changed = []
        for name in tuple(gone):
            state = self._states.pop(name, None)
            if state is not None:
                changed.append(state)
        for pod in pods:
            changed += self._put(pod)
        if changed:
            self._changed(changed)

    def upsert(self, pod: Pod) -> None:
        """Add a pod, or take its new description."""
        self.update((pod,))

    def remove(self, name: str) -> None:
        """Forget a pod."""
        self.update((), gone=(name,))

    # What the scraper says

    def put_metrics(self, state: PodState, metrics: PodMetrics) -> None:
        """Take a pod's newest snapshot."""
        state.metrics = metrics
        state.scrape_failures = 0
        state.beliefs.scraped(metrics, state.in_flight)
        self._usual_slots = state.beliefs.slots or self._usual_slots
        for listener in self._metrics_listeners:
            listener(state)

    def put_scrape_failure(self, state: PodState) -> None:
        """Note that a scrape failed. The last good snapshot stays, and its age tells."""
        state.scrape_failures += 1

    def put_models(self, state: PodState, models: Iterable[ServedModel]) -> None:
        """Take what a pod's ``/v1/models`` lists."""
        served = tuple(models)
        base_models = frozenset(model.name for model in served if model.base is None)
        adapters: dict[str, str | None] = {
            model.name: model.base for model in served if model.base is not None
        }
        if state.models_known and base_models == state.base_models and adapters == state.adapters:
            return
        state.base_models, state.adapters, state.models_known = base_models, adapters, True
        self._changed((state,))

    # What a request asks

    def ready(self) -> tuple[PodState, ...]:
        """Return all pods that may get new requests."""
        if self._ready is None:
            self._ready = tuple(state for state in self._states.values() if state.pod.ready)
        return self._ready

    def serving(self, model: str) -> ModelPods:
        """Return the ready pods that serve ``model``, and whether it is an adapter there."""
        found = self._by_model.get(model)
        if found is None:
            found = self._find(model)
            # Unknown names are not remembered: clients choose them, and memory is finite.
            if found.pods:
                self._by_model[model] = found
        return found

    def models(self) -> Mapping[str, ModelPods]:
        """Return every model that some ready pod serves."""
        names = {name for state in self.ready() for name in (*state.base_models, *state.adapters)}
        return {name: self.serving(name) for name in sorted(names)}

    def _find(self, model: str) -> ModelPods:
        pods = []
        is_adapter = False
        for state in self.ready():
            if model in state.adapters:
                pods.append(state)
                is_adapter = True
            elif model in state.base_models:
                pods.append(state)
        return ModelPods(tuple(pods), is_adapter)

    def _put(self, pod: Pod) -> Iterable[PodState]:
        """Take a pod's description; return the states that it changed."""
        old = self._states.get(pod.name)
        if old is not None and old.pod == pod:
            return ()
        if old is not None and (old.pod.address, old.pod.uid) == (pod.address, pod.uid):
            if old.pod.models is not None and pod.models is None:
                old.models_known = False
            old.pod = pod
            state = old
            changed = [old]
        else:
            # Another address or uid is another server: nothing known of the old one holds for it.
            state = self._states[pod.name] = PodState(pod, self._usual_slots)
            changed = [state] if old is None else [old, state]
        if pod.models is not None:
            base, *adapters = pod.models
            state.base_models = frozenset((base,))
            state.adapters = dict.fromkeys(adapters, base)
            state.models_known = True
        elif pod.base_model is not None and not state.models_known:
            state.base_models = frozenset((pod.base_model,))
        return changed

    def _changed(self, states: Collection[PodState]) -> None:
        self._ready = None
        self._by_model.clear()
        for listener in self._listeners:
            listener(states)
