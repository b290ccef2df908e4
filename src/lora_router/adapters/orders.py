"""What people order by hand: load an adapter, unload one, bring the fleet up to date now.

Rules:

- Only the router that loads obeys. An order changes nothing that the file or a resource declares.
- A load with a source declares an adapter, under the origin ``command``. It is declared until it is
  unloaded by an order, or until another router loads: nothing stores it.
- A source must be allowed (``sources``), as for everybody but the operator's file.
- An unload of an adapter that was never declared removes it from all pods, once it has no requests.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import (
    BY_DEMAND,
    MAX_DECLARED,
    NAME_RULE,
    DeclaredAdapter,
    WantedPods,
    is_name,
)
from lora_router.adapters.loader import Loader
from lora_router.adapters.sources import OPERATORS_FILE, AllowedSources, SourceError
from lora_router.counted import counted
from lora_router.fleet.fleet import Fleet
from lora_router.steps import Steps

COMMAND = "command"


class OrderError(ValueError):
    """An order cannot be obeyed. The message says why, and what can be done instead."""


@dataclass(frozen=True, slots=True)
class PendingStep:
    """A load or an unload that the loader will do."""

    action: Literal["load", "unload"]
    adapter: str
    """Its served name."""
    pod: str
    reason: str
    """Why: the reason of a place, ``removed``, or ``older-version``."""
    put_off: str
    """Why it is not done now. Empty: it is."""


class Orders:
    """Obeys orders at one router."""

    def __init__(
        self, declarations: Declarations, loader: Loader, allowed: AllowedSources, fleet: Fleet
    ) -> None:
        self._declarations = declarations
        self._loader = loader
        self._allowed = allowed
        self._fleet = fleet
        loader.on_replaced = self._end

    def _end(self) -> Steps[None]:
        """End what commands declared, because another router loads now."""
        yield from self._declarations.replace_added(COMMAND, ())

    @property
    def obeys(self) -> bool:
        """Whether this router is the one that loads."""
        return self._loader.loads

    def load(
        self, name: str, source: str | None, base_model: str | None, copies: int | None = None
    ) -> str:
        """Load an adapter, and return a sentence about it.

        Args:
            name: Its name.
            source: From where pods load it. ``None``: it is declared already.
            base_model: Its base model. ``None``: the only one of the fleet.
            copies: On how many pods. ``None``: as its requests need.

        Raises:
            OrderError: It cannot be loaded.
        """
        declared = self._declarations.get(name)
        if source is None:
            if declared is None:
                raise OrderError(f"{name!r} is not declared: name its source to declare it")
            if copies is not None or base_model is not None:
                changed = "base model" if copies is None else "copies"
                if declared.origin == COMMAND:
                    raise OrderError(f"{name!r}: to change its {changed}, name its source, too")
                who = _who(declared.origin)
                raise OrderError(f"{name!r} is declared by {who}: change its {changed} there")
            self._loader.try_now(declared.served_name)
            return f"{declared.served_name} is loaded where it belongs, now"
        if declared is not None and declared.origin != COMMAND:
            raise OrderError(
                f"{name!r} is declared by {_who(declared.origin)}: change its source there"
            )
        base = self._base_model(base_model)
        if self._fleet.serving(name).pods and not self._fleet.serving(name).is_adapter:
            raise OrderError(f"name={name!r:.80}: is a base model: choose another name")
        adapter = DeclaredAdapter(
            self._name(name),
            base,
            self._source(source),
            BY_DEMAND if copies is None else WantedPods(copies=copies),
            origin=COMMAND,
        )
        if len(self._declarations) >= MAX_DECLARED:
            raise OrderError(f"more than {MAX_DECLARED} adapters are declared")
        if not self._declarations.add(COMMAND, adapter):
            raise OrderError(f"{name!r} cannot be declared: its name is taken")
        # Its version was derived when it was declared.
        self._loader.try_now((self._declarations.get(name) or adapter).served_name)
        message = f"{name} is declared until the router that loads is replaced, and loaded now"
        pods = sum(base in state.base_models for state in self._fleet)
        if copies is not None and copies > pods:
            message += f", on {counted(pods, 'pod')}: no more serve {base}"
        return message

    def unload(self, name: str) -> str:
        """Unload an adapter from all pods, and return a sentence about it.

        Raises:
            OrderError: It is declared elsewhere, or no pod has it.
        """
        is_ended = self._declarations.discard(COMMAND, name)
        declared = self._declarations.get(name) or self._loader.retirement.declared.get(name)
        if is_ended and declared is not None:
            stays = f"stays declared by {_who(declared.origin)}"
            return f"{name} is no longer declared by a command, and {stays}"
        if is_ended:
            return f"{name} is no longer declared, and unloaded when its last request has ended"
        if declared is not None:
            raise OrderError(f"{name!r} is declared by {_who(declared.origin)}: remove it there")
        if not self._fleet.serving(name).is_adapter:
            raise OrderError(f"no pod lists an adapter {name!r}")
        self._loader.remove(name)
        return f"{name} is unloaded when its last request has ended"

    def sync(self) -> str:
        """Try again at once what failed, and return a sentence about it."""
        self._loader.try_now(None)
        return "what failed is tried again now"

    def pending(self) -> Iterator[Sequence[PendingStep]]:
        """Yield what the loader will do, one pod after the other."""
        retirement = self._loader.retirement
        for pod in tuple(self._loader.pods.values()):
            found: list[PendingStep] = []
            name = pod.state.pod.name
            for adapter in pod.retiring:
                reason = "older-version" if retirement.successor(adapter) else "removed"
                found.append(PendingStep("unload", adapter, name, reason, pod.put_off))
            found.extend(
                PendingStep("unload", adapter, name, "misplaced", pod.put_off)
                for adapter in pod.misplaced
            )
            leaving = pod.leaving
            if leaving is not None and leaving.why != "outdated":
                found.append(PendingStep("unload", leaving.name, name, leaving.why, ""))
            for adapter, place in pod.missing.items():
                found.append(PendingStep("load", adapter, name, place.reason, pod.put_off))
            yield found

    def _source(self, source: str) -> str:
        try:
            self._allowed.check(source, COMMAND)
        except SourceError as error:
            raise OrderError(f"source={source!r:.80}: {error}") from None
        return source

    def _base_model(self, base_model: str | None) -> str:
        known = sorted({model for state in self._fleet for model in state.base_models})
        if base_model is None:
            if len(known) != 1:
                shown = ", ".join(known[:5]) or "none yet"
                raise OrderError(f"base_model: name one; the fleet has {shown}")
            return known[0]
        if base_model not in known:
            raise OrderError(f"base_model={base_model!r:.80}: no pod serves this base model")
        return base_model

    @staticmethod
    def _name(name: str) -> str:
        if not is_name(name):
            raise OrderError(f"name={name!r:.80}: must be {NAME_RULE}")
        return name


def _who(origin: str) -> str:
    """Return who declares an adapter, as part of a sentence."""
    return "the file" if origin == OPERATORS_FILE else origin
