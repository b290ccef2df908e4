"""Discovery of pods through the Kubernetes API.

While the API server cannot be reached, the last known pods stay in use and their age is reported.
A namespace that cannot be read keeps the others waiting only for a while (``followed_namespaces``).
A pod receives new requests while it is Ready, has an IP and is not being deleted.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from lora_router.counted import counted
from lora_router.discovery.fleet_update import PODS_AT_ONCE, update_fleet
from lora_router.discovery.followed_namespaces import FollowedNamespace, FollowedNamespaces
from lora_router.discovery.kubernetes_api import (
    ApiError,
    Credentials,
    CredentialsError,
    KubernetesApi,
)
from lora_router.discovery.object_watch import (
    Alive,
    Changed,
    Listed,
    Lost,
    ObjectEvent,
    object_events,
)
from lora_router.discovery.page_urls import PageRules
from lora_router.discovery.pod_object import MODEL_LABEL, PodObject
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pod_query import pod_query
from lora_router.discovery.pod_translation import Family, to_pods
from lora_router.discovery.rank_names import told_apart
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.log_limit import LogLimit
from lora_router.supervision import Supervisor, cancel

log = logging.getLogger("lora_router.discovery")

_NAMES_IN_A_LINE = 5


class DiscoveryObserver(Protocol):
    """Counts the events of discovery."""

    def pod_events(self, kind: str, count: int) -> None:
        """Count pods that were ``listed``, ``changed`` or ``deleted``."""

    def discovery_lost(self, cause: str) -> None:
        """Count a failure to list or watch. ``cause`` is one of a few words, for a label."""


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """Which pods of which cluster to use."""

    namespaces: tuple[str, ...] = ()
    """Empty: all namespaces."""
    selector: str = MODEL_LABEL
    """A Kubernetes label selector."""
    ports: PortRules = field(default_factory=PortRules)
    family: Family = "any"
    """Which of a pod's addresses to use."""
    pages: PageRules = field(default_factory=PageRules)
    """Where the pages are that the router reads."""
    credentials: Credentials = field(default_factory=Credentials)
    watch_seconds: int = 30
    """Server-side timeout of a watch. A watch without traffic for this long plus 10 s is lost."""


class KubernetesPods:
    """Follows the pods of one or several namespaces. Must be created in a running event loop."""

    def __init__(
        self,
        fleet: Fleet,
        options: KubernetesOptions,
        observer: DiscoveryObserver,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._options = options
        self._observer = observer
        self._supervisor = supervisor or Supervisor()
        self._limit = LogLimit(10.0, burst=50, clock=clock)
        self._clock = clock
        self._scopes = FollowedNamespaces(
            [_Scope(namespace, clock()) for namespace in options.namespaces or (None,)], clock
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._synced = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the API server last confirmed the pods.

        With several namespaces, the longest of their times. Up to ``watch_seconds`` is normal. One
        that is left out has no pods to confirm.
        """
        now = self._clock()
        return max(now - scope.heard for scope in self._scopes if not scope.is_left_out)

    @property
    def left_out(self) -> dict[str, str]:
        """The namespaces that the router goes on without, and why they cannot be read."""
        return self._scopes.left_out

    @property
    def last_error(self) -> str | None:
        """Why pods cannot be followed at the moment, or ``None``."""
        failing = (scope for scope in self._scopes if scope.error is not None)
        return next((f"{scope}: {scope.error}" for scope in failing), None)

    def refresh(self) -> None:
        """Do nothing: the API server reports changes."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        age = round(self.age, 1)
        status: dict[str, object] = {"discovery": "kubernetes", "pods_age_seconds": age}
        if self.last_error is not None:
            status["discovery_error"] = self.last_error
        if self.left_out:
            status["unread_namespaces"] = self.left_out
        return status

    async def start(self) -> None:
        """Start to follow the pods. The API server need not be reachable yet.

        Raises:
            CredentialsError: No usable credentials were found.
        """
        try:
            await self.check_credentials()
        except CredentialsError as error:
            raise CredentialsError(
                "no pods are configured: set 'endpoints' (LORA_ROUTER_ENDPOINTS, --endpoints) to a "
                f"YAML file that lists them, or give access to a Kubernetes cluster: {error}"
            ) from error
        self._follow_all()

    async def check_credentials(self) -> None:
        """Check that there are credentials, without connecting.

        Raises:
            CredentialsError: No usable credentials were found.
        """
        api = await self._open()
        await api.close()

    async def aim(self, selector: str, ports: PortRules) -> None:
        """Follow other pods, or the same ones at other ports, from now on.

        The present ones stay in use until the new list has been read.
        """
        await self.stop()
        self._options = replace(self._options, selector=selector, ports=ports)
        self._follow_all()

    async def stop(self) -> None:
        """Stop following. The fleet keeps its pods."""
        tasks, self._tasks = self._tasks, []
        await cancel(tasks)

    async def synced(self) -> None:
        """Wait until the pods of every namespace have been listed once, or it is left out."""
        await self._synced.wait()

    def _follow_all(self) -> None:
        self._tasks = [
            self._supervisor.keep("pod-watch", partial(self._follow, scope), about=str(scope))
            for scope in self._scopes
        ]

    async def _follow(self, scope: "_Scope") -> None:
        options = self._options
        query = pod_query(scope.namespace, options.selector, watch_seconds=options.watch_seconds)
        async with aclosing(object_events(self._open, query)) as events:
            async for event in events:
                # An event that cannot be applied ends this run of the task. The next run starts
                # with a list, so that the fleet lacks changes for no longer than the backoff.
                await self._apply_event(scope, event)

    async def _open(self) -> KubernetesApi:
        return await KubernetesApi.open(self._options.credentials)

    async def _apply_event(self, scope: "_Scope", event: ObjectEvent[PodObject]) -> None:
        match event:
            case Lost(error, retry_seconds):
                self._lost(scope, error, retry_seconds)
                return
            case Listed(objects):
                await self._listed(scope, objects)
            case Changed(changes):
                await self._changed(scope, changes)
            case Alive():
                pass
        scope.heard = self._clock()
        if scope.error is not None:
            scope.error = None
            message = "watch of %s recovered; %s"
            pods = counted(len(scope.pods), "pod")
            self._limit.log(log, logging.INFO, "recovered", message, scope, pods)

    async def _listed(self, scope: "_Scope", objects: Sequence[PodObject]) -> None:
        found: dict[str, tuple[Pod, ...]] = {}
        for number, each in enumerate(objects, start=1):
            found[each.full_name] = self._translated(scope, each)
            if number % PODS_AT_ONCE == 0:
                await asyncio.sleep(0)  # Requests take precedence.
        self._observer.pod_events("listed", len(objects))
        first = not scope.listed
        gone = dict.fromkeys(scope.names.keys() - found.keys(), ())
        for name in scope.problems.keys() - found.keys():
            del scope.problems[name]
        if first:
            pods = [pod for pods in found.values() for pod in pods]
            log.info(
                "%s: %s, %d of them ready", scope, counted(len(pods), "pod"), _count_ready(pods)
            )
        await self._apply(scope, {**gone, **found}, quiet=first)
        # Only now: another namespace may be read, or left out, while this list is applied.
        self._scopes.was_listed(scope)
        self._check_read()

    def _check_read(self) -> None:
        if self._scopes.are_read:
            self._fleet.synced = True
            self._synced.set()

    async def _changed(self, scope: "_Scope", changes: Iterable[tuple[PodObject, bool]]) -> None:
        # Of several events of one pod that arrived together, the last one counts.
        found: dict[str, tuple[Pod, ...]] = {}
        deleted = total = 0
        for each, exists in changes:
            total += 1
            deleted += not exists
            found[each.full_name] = self._translated(scope, each) if exists else ()
            if not exists:
                scope.problems.pop(each.full_name, None)
        self._observer.pod_events("deleted", deleted)
        self._observer.pod_events("changed", total - deleted)
        await self._apply(scope, found, quiet=False)

    async def _apply(
        self, scope: "_Scope", found: Mapping[str, tuple[Pod, ...]], *, quiet: bool
    ) -> None:
        """Apply what became of some objects, by their names: the pods of the fleet that each is."""
        for each, of_object in found.items():
            if of_object:
                scope.objects[each] = of_object
            else:
                scope.objects.pop(each, None)
        found = told_apart(found, scope.objects)
        known = scope.pods
        became_ready, stopped = [], []
        pods = {pod.name: pod for pods in found.values() for pod in pods}
        gone = {name for each in found for name in scope.names.get(each, ())} - pods.keys()
        for name, pod in pods.items():
            was_ready = name in known and known[name].ready
            if pod.ready and not was_ready:
                became_ready.append(f"{name} ({pod.address})")
            elif was_ready and not pod.ready:
                stopped.append(name)
        # If the fleet cannot be updated, or not to the end, the next list still removes what is
        # gone then, whether it was known before or not.
        known.update(pods)
        for each, of_object in found.items():
            scope.names.setdefault(each, set()).update(pod.name for pod in of_object)
        await update_fleet(self._fleet, tuple(pods.values()), tuple(gone))
        for each, of_object in found.items():
            if of_object:
                scope.names[each] = {pod.name for pod in of_object}
            else:
                del scope.names[each]
        left = [name for name in gone if known.pop(name, None) is not None]
        if not quiet:
            self._log_names("ready", became_ready)
            self._log_names("no longer ready", stopped)
            self._log_names("gone", left)

    def _translated(self, scope: "_Scope", found: PodObject) -> tuple[Pod, ...]:
        name = found.full_name
        try:
            pods, problems = to_pods(
                found, self._options.ports, self._options.family, self._options.pages
            )
        except Exception as error:
            # A fault in one pod must not affect the others.
            self._supervisor.failed("pod-watch", error, about=f"pod {name}")
            return ()
        if problems and scope.problems.get(name) != problems:
            scope.problems[name] = problems
            for problem in problems:
                self._limit.log(log, logging.WARNING, "labels", "pod %s: %s", name, problem)
        return pods

    def _log_names(self, what: str, names: list[str]) -> None:
        if names:
            more = len(names) - _NAMES_IN_A_LINE
            listed = ", ".join(names[:_NAMES_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")
            self._limit.log(log, logging.INFO, what, "pods %s: %s", what, listed)

    def _lost(self, scope: "_Scope", error: ApiError, retry_seconds: float) -> None:
        self._observer.discovery_lost(error.cause)
        if scope.error is None:
            stay = (
                f"the last list of {counted(len(scope.pods), 'pod')} stays in use"
                if scope.listed
                else "no pods yet"
            )
            self._limit.log(
                log,
                logging.WARNING,
                "failed",
                "watch of %s failed, %s; retry in %.1f s: %s",
                scope,
                stay,
                retry_seconds,
                error,
            )
        scope.error = str(error)
        if self._scopes.failed(scope, error):
            line = "%s cannot be read, and its pods are missing; the others are used without it: %s"
            log.warning(line, scope, error)
            self._check_read()


class _Scope(FollowedNamespace):
    """What one watch covers, and its pods."""

    def __init__(self, namespace: str | None, now: float) -> None:
        super().__init__(namespace)
        self.pods: dict[str, Pod] = {}
        """By their names in the fleet."""
        self.objects: dict[str, tuple[Pod, ...]] = {}
        """By the name of the object: its pods in the fleet, before ``told_apart``."""
        self.names: dict[str, set[str]] = {}
        """By the name of the object: those of its pods in the fleet."""
        self.problems: dict[str, tuple[str, ...]] = {}
        """By the name of the object: the problems of its labels that have been logged."""
        self.heard = now


def _count_ready(pods: Iterable[Pod]) -> int:
    return sum(pod.ready for pod in pods)
