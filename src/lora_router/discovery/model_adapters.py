"""Follows AIBrix's ModelAdapter resources, which declare adapters.

Rules:

- A resource that is being deleted declares nothing: its adapter is unloaded at once. The router
  neither sets nor removes a finalizer, so it never holds up a deletion.
- If two resources declare the same adapter, the older one counts.
- Of more than ``MAX_DECLARED``, the oldest count, in whatever order they were read. As many more
  are known, and take the place of those that are deleted.
- If a resource becomes invalid, what it declared before stays in use.
- While the API server cannot be reached, the last known resources stay in use.
- Nothing is declared before every namespace was listed: of two resources with one name, the older
  one may be in the last. ``followed_namespaces`` says when one that cannot be read is left out.
- AIBrix's own controller loads adapters as well. A resource that it works on while this router
  watches is left to it: the router declares nothing for it. The signs are that the controller adds
  its finalizer, or writes the status of a resource that has the finalizer. A resource that only has
  the finalizer may stem from a controller that was removed, and is used.
"""

import asyncio
import logging
import time
from bisect import bisect_left, insort
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi

from lora_router.adapters.declared import MAX_DECLARED, DeclaredAdapter
from lora_router.adapters.sources import AllowedSources
from lora_router.discovery.followed_namespaces import FollowedNamespace, FollowedNamespaces
from lora_router.discovery.kubernetes_api import ApiError, Call, Credentials, KubernetesApi
from lora_router.discovery.model_adapter_object import (
    GROUP,
    PLURAL,
    VERSION,
    ModelAdapterObject,
)
from lora_router.discovery.model_adapter_record import Key, ModelAdapter, next_record
from lora_router.discovery.object_watch import (
    Alive,
    Changed,
    Listed,
    Lost,
    ObjectEvent,
    ObjectQuery,
    object_events,
)
from lora_router.log_limit import LogLimit
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.discovery")

DECLARE_SECONDS = 0.2
"""Time between two changes of what is declared. Each costs time for all resources."""
_AT_ONCE = 50
"""Resources that are translated in one turn of the event loop."""
_COLLECTED_AT_ONCE = 500
_NAMED = 10
"""Resources that ``/readyz`` names. The others are only counted."""

Declare = Callable[[Sequence[DeclaredAdapter]], Awaitable[None]]
Listener = Callable[[Key], None]


@dataclass(frozen=True, slots=True)
class ModelAdapterOptions:
    """Which resources of which cluster to use."""

    namespaces: tuple[str, ...]
    """Empty: all namespaces."""
    allowed: AllowedSources
    """The sources from which pods may load."""
    manager: str
    """The field manager by which the routers of this fleet write."""
    credentials: Credentials
    watch_seconds: int = 30
    """Server-side timeout of a watch."""


class ModelAdapters:
    """Follows the resources of one or several namespaces, and declares their adapters."""

    def __init__(
        self,
        options: ModelAdapterOptions,
        declare: Declare,
        supervisor: Supervisor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it, without connecting.

        Args:
            options: Which resources.
            declare: Called with all adapters that they declare, after each change.
            supervisor: Runs the tasks.
            clock: Returns seconds, monotonic.
        """
        self._options = options
        self._declare = declare
        self._supervisor = supervisor
        self._scopes = FollowedNamespaces(
            [_Scope(namespace) for namespace in options.namespaces or (None,)], clock
        )
        self._is_read = False
        """Whether there is no more to wait for. Once it is so, it stays so."""
        self._records: dict[Key, ModelAdapter] = {}
        self._order: list[tuple[str, Key]] = []
        """All of them, the oldest first. Times in RFC 3339 of one zone sort as text."""
        self._listeners: list[Listener] = []
        self._limit = LogLimit(60.0, burst=20, clock=clock)
        self._stale = asyncio.Event()
        """Something has changed that is not declared yet."""
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[ModelAdapter]:
        return (self._records[key] for _, key in self._order)

    def get(self, key: Key) -> ModelAdapter | None:
        """Return a resource as last seen."""
        return self._records.get(key)

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` after each change of a resource, also of its status."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start to follow them. They are followed until the supervisor stops."""
        self._tasks = [
            self._supervisor.keep("model-adapters", partial(self._follow, scope), about=str(scope))
            for scope in self._scopes
        ]
        self._tasks.append(self._supervisor.keep("model-adapters-declare", self._keep_declaring))

    def unread(self) -> str | None:
        """Return why a router should not get requests yet, or ``None``.

        An API server that refuses all does not keep it waiting: pods list what they have loaded.
        """
        return None if self._is_read else "the ModelAdapters have not been read yet"

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        shown: dict[str, object] = {"resources": len(self._records)}
        unfit = [each for each in self if each.translation.problem]
        if unfit:
            shown["invalid"] = len(unfit)
            shown["problems"] = {str(each.key): each.translation.problem for each in unfit[:_NAMED]}
        left = [each for each in self if each.left_to]
        if left:
            shown["left_to_others"] = len(left)
            shown["others"] = sorted({each.left_to for each in left})[:_NAMED]
            shown["hint"] = (
                "AIBrix's controller works on ModelAdapters too, and this router leaves those to "
                "it: stop one of the two (docs/kubernetes.md)"
            )
        errors = [f"{scope}: {scope.error}" for scope in self._scopes if scope.error is not None]
        if errors:
            shown["error"] = errors[0]
        if self._scopes.left_out:
            shown["unread_namespaces"] = self._scopes.left_out
        return {"model_adapters": shown}

    async def _follow(self, scope: "_Scope") -> None:
        options = self._options
        async with aclosing(object_events(self._open, _query(scope, options))) as events:
            async for event in events:
                # An event that cannot be applied ends this run of the task. The next run starts
                # with a list.
                await self._apply(scope, event)

    async def _open(self) -> KubernetesApi:
        return await KubernetesApi.open(self._options.credentials)

    async def _apply(self, scope: "_Scope", event: ObjectEvent[ModelAdapterObject]) -> None:
        match event:
            case Lost(error):
                self._lost(scope, error)
                return
            case Listed(objects):
                await self._put((each, True) for each in objects)
                gone = scope.keys - {_key(each) for each in objects}
                scope.keys -= gone
                for key in gone:
                    self._remove(key)
                scope.keys |= {_key(each) for each in objects}
                if not scope.listed:
                    self._scopes.was_listed(scope)
                    log.info("%s: %d ModelAdapters", scope, len(objects))
                    self._stale.set()
            case Changed(changes):
                for each, exists in changes:
                    (scope.keys.add if exists else scope.keys.discard)(_key(each))
                await self._put(changes)
            case Alive():
                pass
        self._check_read()
        if scope.error is not None:
            scope.error = None
            self._limit.log(
                log, logging.INFO, "recovered", "watch of ModelAdapters of %s recovered", scope
            )

    async def _put(self, changes: Iterable[tuple[ModelAdapterObject, bool]]) -> None:
        for number, (found, exists) in enumerate(changes, start=1):
            if exists:
                self._put_one(found)
            else:
                self._remove(_key(found))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # Requests take precedence.

    def _put_one(self, found: ModelAdapterObject) -> None:
        key = _key(found)
        known = self._records.get(key)
        record = next_record(known, found, self._options.allowed, self._options.manager)
        if known is None or known.created != record.created:
            self._forget(key)
            insort(self._order, (record.created, key))
        self._records[key] = record
        if known is None and len(self._records) > MAX_DECLARED:
            newest = self._order[-1][1]
            line = "more than %d ModelAdapters; %s and others are not used"
            self._limit.log(log, logging.WARNING, "many", line, MAX_DECLARED, newest)
            if len(self._records) > 2 * MAX_DECLARED:
                # Only a new list brings it back.
                self._remove(newest)
                if newest == key:
                    return
        if known is None or record.declares != known.declares:
            self._stale.set()
        problem = record.translation.problem
        if problem and (known is None or known.translation.problem != problem):
            line = "ModelAdapter %s: %s"
            if record.translation.adapter is not None:
                line += "; its last valid spec stays in use"
            self._limit.log(log, logging.WARNING, "invalid", line, key, problem)
        if record.left_to and (known is None or not known.left_to):
            line = "ModelAdapter %s is left to %s, which works on it too"
            self._limit.log(log, logging.WARNING, "left", line, key, record.left_to)
        self._tell(key)

    def _remove(self, key: Key) -> None:
        record = self._forget(key)
        if record is not None:
            if record.declares is not None:
                self._stale.set()
            self._tell(key)

    def _forget(self, key: Key) -> ModelAdapter | None:
        record = self._records.pop(key, None)
        if record is not None:
            del self._order[bisect_left(self._order, (record.created, key))]
        return record

    def _tell(self, key: Key) -> None:
        for listener in self._listeners:
            listener(key)

    async def _keep_declaring(self) -> None:
        while True:
            await self._stale.wait()
            if self._scopes.are_read:
                self._stale.clear()
                await self._declare(await self._collect())
            await asyncio.sleep(DECLARE_SECONDS)

    async def _collect(self) -> Sequence[DeclaredAdapter]:
        """Return what is declared. A change meanwhile leads to another call."""
        found: list[DeclaredAdapter] = []
        for number, (_, key) in enumerate(tuple(self._order), start=1):
            record = self._records.get(key)
            if record is not None and (adapter := record.declares) is not None:
                found.append(adapter)
                if len(found) == MAX_DECLARED:
                    break
            if number % _COLLECTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # Requests take precedence.
        return found

    def _lost(self, scope: "_Scope", error: ApiError) -> None:
        text = str(error)
        if error.cause == "missing":
            text += f" (there is no {PLURAL}.{GROUP}: docs/kubernetes.md says how to define it)"
        if scope.error is None:
            line = "ModelAdapters of %s cannot be followed, the last ones stay in use: %s"
            self._limit.log(log, logging.WARNING, "lost", line, scope, text)
        scope.error = text
        if self._scopes.failed(scope, error):
            line = "ModelAdapters of %s cannot be read; the others are used without them: %s"
            log.warning(line, scope, text)
            self._stale.set()
        self._check_read()

    def _check_read(self) -> None:
        refused = all(each.error is not None and not each.listed for each in self._scopes)
        self._is_read = self._is_read or refused or self._scopes.are_read


class _Scope(FollowedNamespace):
    """What one watch covers, and its resources."""

    def __init__(self, namespace: str | None) -> None:
        super().__init__(namespace)
        self.keys: set[Key] = set()


def _key(found: ModelAdapterObject) -> Key:
    return Key(found.metadata.namespace, found.metadata.name)


def _query(scope: _Scope, options: ModelAdapterOptions) -> ObjectQuery[ModelAdapterObject]:
    which = {"group": GROUP, "version": VERSION}
    if scope.namespace is None:
        which["resource_plural"] = PLURAL
        return ObjectQuery(ModelAdapterObject, _all, which, options.watch_seconds)
    which |= {"plural": PLURAL, "namespace": scope.namespace}
    return ObjectQuery(ModelAdapterObject, _namespaced, which, options.watch_seconds)


def _all(api: KubernetesApi) -> Call:
    calls = CustomObjectsApi(api.client)
    return calls.list_custom_object_for_all_namespaces_without_preload_content


def _namespaced(api: KubernetesApi) -> Call:
    return CustomObjectsApi(api.client).list_namespaced_custom_object_without_preload_content
