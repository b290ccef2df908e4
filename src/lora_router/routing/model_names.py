"""What the names that clients write stand for, beside the models that pods list.

- A name with a rewrite stands for another one (``model_rewrites``), whatever pods serve.
- A name that no pod lists goes to the pods of one base model, as an adapter of it, if the settings
  name that base model: servers can load adapters on first use. A pod that answers 404 shows that it
  cannot. The name is then refused for ``DENIED_SECONDS``, because the other pods load from the same
  place. A pod that answers is asked for its list, and then the name is known.
- SGLang takes an adapter as ``base:adapter``, and answers a request for ``adapter`` with the base
  model. So the pods of this engine are asked in their way and others in theirs, whichever way the
  client chose.
- An adapter that is declared is loaded when it is asked for, and its name and aliases stand for the
  names of its versions (``declared_names``).
- An adapter that is known, but of which no pod is in use, falls back to its base model, if the
  settings say so.

Clients choose names. What is remembered of them is bounded, and none becomes a label of a metric.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import NOT_FOUND, Reservation
from lora_router.fleet.model_index import ModelPods
from lora_router.fleet.pod_state import PodState
from lora_router.routing.declared_names import DeclaredName, DeclaredNames
from lora_router.routing.model_rewrites import ModelRewrites, Rewrite, Target
from lora_router.routing.refusal import Refusal

DENIED_SECONDS = 5.0
"""How long a name is refused after a pod answered 404 for it."""
SGLANG = "sglang"
_MAX_COLONS = 8
_MAX_DENIED = 1024
_MAX_PARENTS = 4096
_MAX_ALIAS_CATALOGS = 8
_SUCCESS = range(200, 300)


class Special(Enum):
    """What is special about a routed request."""

    FELL_BACK = "base-fallback"
    """It asked for an adapter, and its base model answers. The value is the reason in metrics."""
    UNLISTED = "unlisted"
    """No pod lists its model."""


FALLS_BACK = (Refusal.NO_READY_POD, Refusal.OVERLOADED, Refusal.ADAPTER_NOT_LOADED)
"""The refusals of an adapter in place of which its base model may answer."""


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """The settings of names."""

    rewrites: tuple[Rewrite, ...] = ()
    unknown: Literal["wait", "reject", "base"] = "wait"
    """What becomes of a name that no pod lists: the lists are read once more, it is refused at
    once, or it goes to the pods of ``unknown_base``."""
    unknown_base: str | None = None
    falls_back: bool = False
    """Whether an adapter without pods falls back to its base model."""
    by_header: bool = False
    """Whether a header may name the model that takes the place of the client's."""


class ModelNames:
    """What names stand for in one fleet."""

    def __init__(self, fleet: Fleet, policy: NamePolicy, now: Callable[[], float]) -> None:
        self.rewrites = ModelRewrites(policy.rewrites)
        """What is rewritten. ``replace_rewrites`` changes it."""
        self._configured = policy.rewrites
        self.falls_back = policy.falls_back
        self.has_sglang = False
        """Whether some pod's engine is SGLang."""
        self._by_header = policy.by_header
        self.may_change = self.falls_back or self.rewrites.active or self._by_header
        """Whether a pod may be asked for another name than the client wrote into the body. An
        attribute, because each request reads it."""
        self.looks_again = policy.unknown == "wait"
        """Whether an unknown name waits until the lists of the pods were read once more."""
        self.declared: DeclaredNames | None = None
        """The adapters that are declared, if any may be."""
        self.on_denied: Callable[[], object] = _nothing
        """Called when a pod answered 404 for a name that no pod lists."""
        self._fleet = fleet
        self._now = now
        self._unknown_base = policy.unknown_base if policy.unknown == "base" else None
        self._denied: dict[str, float] = {}
        """Names that a pod has denied, and until when they are refused, oldest first."""
        self._parents: dict[str, str | None] = {}
        self._alias_catalogs: dict[frozenset[Catalog], Catalog] = {}
        self._of_sglang: set[PodState] = set()
        self._pods_changed(tuple(fleet))
        fleet.changes.pods.subscribe(self._pods_changed)

    def replace_rewrites(self, rewrites: Iterable[Rewrite]) -> None:
        """Use other rewrites beside those of the settings, which come first."""
        self.rewrites.replace((*self._configured, *rewrites))
        self._pods_changed(())

    def declare(self, name: str, targets: tuple[Target, ...]) -> None:
        """Replace what the name or alias of a declared adapter stands for; no targets: itself."""
        self.rewrites.declare(name, targets)
        self._set_may_change()

    def declared_as(self, model: str) -> DeclaredName | None:
        """Return the declared adapter that pods are asked for by a name, or ``None``."""
        return None if self.declared is None else self.declared.find(model)

    def want(self, model: str) -> None:
        """Have an adapter loaded for which a request waits, if it is declared."""
        if self.declared is not None:
            self.declared.want(model)

    def declared_instead(self, model: str) -> str | None:
        """Return the name of the declared version of an adapter, by that of an older one."""
        return None if self.declared is None else self.declared.declared_instead(model)

    def listed(self, model: str) -> ModelPods:
        """Return the pods that serve a name, as lists of models show it: an alias is its target."""
        for target in self.rewrites.targets(model):
            serving = self._fleet.serving(target)
            if serving.pods:
                return serving
        return self._fleet.serving(model)

    def on_pod(self, model: str, state: PodState) -> str:
        """Return the version of a declared adapter that a pod has: the declared one, if it has it.

        A request that only one pod can serve stays there while versions move.
        """
        if self.declared is not None and model not in state.catalog:
            for other in self.declared.other_versions(model):
                if other in state.catalog:
                    return other
        return model

    def loadable(self, model: str) -> ModelPods | None:
        """Return the base model of a declared adapter that may be loaded, and its pods.

        ``None``: there is no such adapter.
        """
        for target in self.rewrites.targets(model) or (model,):
            declared = self.declared_as(target)
            if declared is not None and declared.problem is None:
                serving = self._fleet.serving(declared.base_model)
                return serving if serving.pods else None
        return None

    def with_aliases(self, catalogs: frozenset[Catalog]) -> frozenset[Catalog]:
        """Return some catalogs with those of the aliases and declared adapters for models in them.

        Names with an asterisk stand for too many. The same catalogs give the same objects again.
        """
        if self.declared is not None:
            bases = {base for catalog in catalogs for base in catalog.base_models}
            catalogs |= {each for each in map(self.declared.catalog, bases) if each is not None}
        aliases = self.rewrites.aliases()
        if not aliases:
            return catalogs
        found = self._alias_catalogs.get(catalogs)
        if found is None:
            found = Catalog.of(
                ServedModel(alias)
                for alias, targets in aliases.items()
                if any(target in catalog for catalog in catalogs for target in targets)
                and not any(alias in catalog for catalog in catalogs)
            )
            if len(self._alias_catalogs) >= _MAX_ALIAS_CATALOGS:
                self._alias_catalogs.clear()
            self._alias_catalogs[catalogs] = found
        return catalogs | {found} if len(found) else catalogs

    def unlisted(self, model: str) -> ModelPods | None:
        """Return the pods that may load a model that no pod lists; ``None``: none may."""
        base = self._unknown_base
        if base is None or not self._may_exist(model):
            return None
        serving = self._fleet.serving(base)
        if not serving.pods or serving.is_adapter:
            return None
        return ModelPods(model, serving.pods, is_adapter=True, unlisted=True)

    def is_unlisted(self, model: str) -> bool:
        """Return whether a model that no pod lists may be loaded once its base model has a pod."""
        return self._unknown_base is not None and self._may_exist(model)

    def with_base(self, model: str) -> ModelPods | None:
        """Return the adapter that ``base:adapter`` names, and its pods; ``None``: it names none.

        An empty base model matches all.
        """
        if not self.has_sglang:
            return None
        at = -1
        for _ in range(_MAX_COLONS):
            at = model.find(":", at + 1)
            if at < 0:
                return None
            base, adapter = model[:at].strip(), model[at + 1 :].strip()
            serving = self._fleet.serving(adapter)
            if serving.is_adapter and (
                not base or any(pod.adapters.get(adapter) in (base, None) for pod in serving.pods)
            ):
                return serving
        return None

    def with_lora_path(self, model: str, lora_path: str) -> str:
        """Return the name of what a request asks for that names an adapter in a field of its own.

        An adapter in the name of the model counts before it, as in SGLang.
        """
        serving = self._fleet.serving(model)
        is_base = not model or (serving.pods and not serving.is_adapter)
        return f"{model}:{lora_path}" if is_base else model

    def asked_of(self, state: PodState, adapter: str) -> str:
        """Return the name by which a pod is asked for an adapter."""
        if state.pod.engine != SGLANG:
            return adapter
        return f"{state.adapters.get(adapter) or state.pod.base_model or ''}:{adapter}"

    def base_of(self, model: str) -> ModelPods | None:
        """Return the base model of an adapter that falls back, and its pods in use."""
        if not self.falls_back:
            return None
        if model not in self._parents:
            if len(self._parents) >= _MAX_PARENTS:
                self._parents.clear()
            self._parents[model] = self._parent(model)
        parent = self._parents[model]
        if parent is None:
            return None
        serving = self._fleet.serving(parent)
        if not serving.pods or serving.is_adapter or serving.excluded:
            return None
        return serving

    def answered(self, reservation: Reservation, answer: Answer) -> None:
        """Learn from how the answer to a request for an unlisted model began."""
        model, state = reservation.adapter, reservation.state
        if model is None or not answer.from_the_pod or model in state.catalog:
            return
        if answer.status in _SUCCESS:
            self._fleet.changes.doubted.send((state,))
        elif answer.status == NOT_FOUND:
            self._denied.pop(model, None)
            if len(self._denied) >= _MAX_DENIED:
                del self._denied[next(iter(self._denied))]
            self._denied[model] = self._now() + DENIED_SECONDS
            reservation.has_no_adapter()
            self.on_denied()

    def _pods_changed(self, states: Collection[PodState]) -> None:
        self._parents.clear()
        self._alias_catalogs.clear()
        for state in states:
            if state.pod.engine == SGLANG and self._fleet.get(state.pod.name) is state:
                self._of_sglang.add(state)
            else:
                self._of_sglang.discard(state)
        self.has_sglang = bool(self._of_sglang)
        self._set_may_change()

    def _set_may_change(self) -> None:
        changes = self.falls_back or self.rewrites.active or self._by_header
        self.may_change = changes or self.has_sglang

    def _may_exist(self, model: str) -> bool:
        until = self._denied.get(model)
        if until is not None:
            if self._now() < until:
                return False
            del self._denied[model]
        # A name that an unready pod lists is known. A client may come back for it.
        return not any(model in state.catalog for state in self._fleet)

    def _parent(self, model: str) -> str | None:
        for state in self._fleet:
            parent = state.adapters.get(model)
            if parent is not None:
                return parent
        declared = self.declared_as(model)
        return None if declared is None else declared.base_model


def _nothing() -> None:
    """Do nothing."""
