"""The pod-metrics cache: the fleet as the router knows it at this moment."""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
        """Whether discovery has delivered its first full list."""
        self._states: dict[str, PodState] = {}
        self._ready: tuple[PodState, ...] | None = None
        self._by_model: dict[str, ModelPods] = {}
        self._listeners: list[Callable[[], None]] = []
        self._metrics_listeners: list[Callable[[PodState], None]] = []

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[PodState]:
        return iter(tuple(self._states.values()))

    def get(self, name: str) -> PodState | None:
        """Return a pod's state, or ``None`` if no such pod is known."""
        return self._states.get(name)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called after each change of pods or of what they serve."""
        self._listeners.append(listener)

    def subscribe_metrics(self, listener: Callable[[PodState], None]) -> None:
        """Have ``listener`` called after each new snapshot, with the pod it is of."""
        self._metrics_listeners.append(listener)

    # What discovery says

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take a full list of the fleet: new pods join, changed ones are updated, others leave."""
        wanted = {pod.name: pod for pod in pods}
        for name in self._states.keys() - wanted.keys():
            del self._states[name]
        for pod in wanted.values():
            self._put(pod)
        self.synced = True
        self._changed()

    def upsert(self, pod: Pod) -> None:
        """Add a pod, or take its new description."""
        self._put(pod)
        self._changed()

    def remove(self, name: str) -> None:
        """Forget a pod. Its open requests run on, counted in the state they hold."""
        if self._states.pop(name, None) is not None:
            self._changed()

    # What the scraper says

    def put_metrics(self, state: PodState, metrics: PodMetrics) -> None:
        """Take a pod's newest snapshot."""
        state.metrics = metrics
        state.scrape_failures = 0
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
        self._changed()

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

    def _put(self, pod: Pod) -> None:
        state = self._states.get(pod.name)
        if state is not None and state.pod.address == pod.address:
            if state.pod.models is not None and pod.models is None:
                state.models_known = False
            state.pod = pod
        else:
            # Another address is another server: nothing known of the old one holds for it.
            state = self._states[pod.name] = PodState(pod)
        if pod.models is not None:
            base, *adapters = pod.models
            state.base_models = frozenset((base,))
            state.adapters = dict.fromkeys(adapters, base)
            state.models_known = True

    def _changed(self) -> None:
        self._ready = None
        self._by_model.clear()
        for listener in self._listeners:
            listener()
