"""The adapters that templates declare, of those that are asked for.

Rules:

- A name that matches a template is declared when a request asks for it, or when a pod lists it: a
  router before this one had it loaded.
- At most ``MAX_NEW`` of these names wait for their first load. Clients choose names, and each costs
  pods a call. A name whose load failed waits no more, until it is asked for again after the pause.
- Of the names whose load failed, about ``MAX_FAILED`` stay declared. Those that failed longest ago
  are forgotten first. The loader still knows their pauses.
- A name that nobody has asked for in ``FORGET_SECONDS``, and of which no pod lists a version, is
  forgotten.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import TEMPLATE, DeclaredAdapter, plain_name
from lora_router.adapters.list_difference import ListDifference
from lora_router.adapters.listed_versions import ListedVersions
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templates import Template
from lora_router.clock import Clock
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps, all_at_once

MAX_NEW = 256
MAX_FAILED = 1024
FORGET_SECONDS = 60.0
_TIDY_SECONDS = 1.0
_AT_ONCE = 64
"""Names that are looked at in one turn of the event loop."""


class Templated:
    """The adapters of templates."""

    def __init__(
        self,
        declarations: Declarations,
        allowed: AllowedSources,
        fleet: Fleet,
        clock: Clock,
        *,
        listed: ListedVersions | None = None,
    ) -> None:
        """Create it without templates.

        Args:
            declarations: Receives the adapters.
            allowed: The sources from which pods may load.
            fleet: The pods.
            clock: The time.
            listed: Knows which versions pods list; ``None``: one of its own.
        """
        self._declarations = declarations
        self._allowed = allowed
        self._fleet = fleet
        self._clock = clock
        self.templates: tuple[Template, ...] = ()
        """The templates in use, in order."""
        self._wanted_at: OrderedDict[str, float] = OrderedDict()
        """By name: when it was wanted last."""
        self._new: dict[str, None] = {}
        """The names that wait for their first load: no pod has listed them yet."""
        self._failed: dict[str, None] = {}
        """The names whose load failed, and that no pod has listed since. The oldest come first."""
        self._unread: deque[Iterator[str]] = deque()
        """Lists of pods, as far as they have not been looked through."""
        self._seen: dict[PodState, Catalog] = {}
        self._pods_with: Counter[Catalog] = Counter()
        """How many of these pods have a catalog. A thousand pods may share one."""
        self._is_looking = self._is_tidying = False
        self._listed = listed or ListedVersions(fleet)
        self._listed.subscribe(self._lists_changed)
        fleet.changes.pods.subscribe(self._pods_changed)

    @property
    def is_full(self) -> bool:
        """Whether no further name may wait for its first load."""
        return len(self._new) >= MAX_NEW

    def may_wait(self, name: str) -> bool:
        """Return whether a name may wait for a load: it needs no place, or one is free."""
        return not self.is_full or (name in self._wanted_at and name not in self._failed)

    def __len__(self) -> int:
        return len(self._wanted_at)

    def replace(self, templates: Iterable[Template]) -> None:
        """Use other templates, at once: for tests. See ``replace_in_steps``."""
        all_at_once(self.replace_in_steps(templates))

    def replace_in_steps(self, templates: Iterable[Template]) -> Steps[None]:
        """Use other templates. What the old ones declared and the new ones do not is withdrawn."""
        self.templates = tuple(templates)
        found: dict[str, DeclaredAdapter] = {}
        for number, name in enumerate(tuple(self._wanted_at), 1):
            adapter = self.find(name)
            if adapter is not None:
                found[name] = adapter
            elif name in self._wanted_at:
                del self._wanted_at[name]
                self._waits_no_more(name)
            if number % _AT_ONCE == 0:
                yield
        yield from self._declarations.replace_added(
            # Names that were asked for meanwhile are declared by the new templates already.
            TEMPLATE,
            filter(None, (found.get(name) or self.find(name) for name in self._wanted_at)),
        )
        self._seen.clear()
        self._pods_with.clear()
        self._pods_changed(tuple(self._fleet))

    def find(self, name: str) -> DeclaredAdapter | None:
        """Return the adapter that the first template declares whose pattern matches a name."""
        for template in self.templates:
            adapter = template.adapter(name, self._allowed)
            if adapter is not None:
                return adapter
        return None

    def want(self, name: str) -> bool:
        """Declare a name that matches, or keep it declared.

        Returns:
            Whether it is declared, by a template or otherwise, and may wait for a load.
        """
        adapter = self._declarations.named(name)
        if adapter is not None and not adapter.is_templated:
            return True
        if not self.may_wait(name):
            return False
        if name in self._wanted_at:
            self._wanted_at[name] = self._clock.now()
            self._wanted_at.move_to_end(name)
            if name in self._failed:
                del self._failed[name]
                self._new[name] = None
            return True
        if not self._add(name):
            return False
        if not self._listed.has(name):
            self._new[name] = None
        while len(self._failed) > MAX_FAILED:
            self._forget(next(iter(self._failed)))
        return True

    def failed(self, name: str) -> None:
        """Let another name wait in the place of one whose load failed."""
        if name in self._new:
            del self._new[name]
            self._failed[name] = None

    def _add(self, name: str) -> bool:
        if self._declarations.get(name) is not None:
            return False
        adapter = self.find(name)
        if adapter is None or not self._declarations.add(TEMPLATE, adapter):
            return False
        self._wanted_at[name] = self._clock.now()
        if not self._is_tidying:
            self._is_tidying = True
            self._clock.call_later(_TIDY_SECONDS, self._tidy)
        return True

    def _lists_changed(self, differences: Iterable[ListDifference]) -> None:
        """Let other names wait in the place of those that a pod lists, in whatever version."""
        waiting = self._new.keys() | self._failed.keys()
        for different in differences:
            for served in (*(waiting & different.names), *different.versions):
                self._waits_no_more(plain_name(served))

    def _pods_changed(self, states: Collection[PodState]) -> None:
        for state in states:
            if self._fleet.get(state.pod.name) is not state:
                self._see(state, None)
                continue
            if self.templates and self._seen.get(state) is not state.catalog:
                if state.catalog not in self._pods_with:
                    self._unread.append(iter(state.catalog.adapters))
                self._see(state, state.catalog)
        if self._unread and not self._is_looking:
            self._is_looking = True
            self._clock.call_later(0.0, self._look)

    def _see(self, state: PodState, catalog: Catalog | None) -> None:
        """Note the catalog of a pod. ``None``: the pod has left."""
        before = self._seen.pop(state, None)
        if catalog is not None:
            self._seen[state] = catalog
            self._pods_with[catalog] += 1
        if before is not None:
            self._pods_with[before] -= 1
            if not self._pods_with[before]:
                del self._pods_with[before]

    def _look(self) -> None:
        """Declare the next names that pods list and that templates match."""
        names = tuple(islice(self._unread[0], _AT_ONCE))
        if not names:
            self._unread.popleft()
        for name in names:
            self._add(plain_name(name))
        self._is_looking = bool(self._unread)
        if self._is_looking:
            self._clock.call_later(0.0, self._look)

    def _tidy(self) -> None:
        """Forget names that nobody has asked for lately and of which no pod lists a version."""
        now, gone = self._clock.now(), []
        for name in tuple(islice(self._wanted_at, _AT_ONCE)):
            if now - self._wanted_at[name] < FORGET_SECONDS:
                break
            if self._listed.has(name):
                self._wanted_at[name] = now
                self._wanted_at.move_to_end(name)
            else:
                self._forget(name)
                gone.append(name)
        if gone:
            # A pod that is not ready may come back with it.
            away = [state.catalog for state in self._fleet if not state.pod.ready]
            for name in gone:
                if not any(name in catalog.adapters for catalog in away):
                    self._declarations.forget_plain(name)
        self._is_tidying = bool(self._wanted_at)
        if self._is_tidying:
            self._clock.call_later(_TIDY_SECONDS, self._tidy)

    def _forget(self, name: str) -> None:
        del self._wanted_at[name]
        self._waits_no_more(name)
        self._declarations.discard(TEMPLATE, name)

    def _waits_no_more(self, name: str) -> None:
        self._new.pop(name, None)
        self._failed.pop(name, None)
