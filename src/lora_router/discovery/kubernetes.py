"""Discovery of pods through the Kubernetes API.

While the API server cannot be reached, the last known pods stay in use and their age is reported.
A pod receives new requests while it is Ready, has an IP and is not being deleted.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from lora_router.discovery.fleet_update import PODS_AT_ONCE, update_fleet
from lora_router.discovery.kubernetes_api import (
    ApiError,
    Credentials,
    CredentialsError,
    KubernetesApi,
    PodQuery,
)
from lora_router.discovery.pod_object import MODEL_LABEL, PodObject, PortRules, to_pod
from lora_router.discovery.pod_watch import (
    Alive,
    Changed,
    Listed,
    Lost,
    PodEvent,
    WatchOptions,
    pod_events,
)
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
        self._scopes = [_Scope(namespace, clock()) for namespace in options.namespaces or (None,)]
        self._tasks: list[asyncio.Task[None]] = []
        self._synced = asyncio.Event()
        self._logged_problems: dict[str, tuple[str, ...]] = {}
        """By pod: the problems of its labels that have been logged."""

    @property
    def age(self) -> float:
        """Seconds since the API server last confirmed the pods.

        With several namespaces, the longest of their times. Up to ``watch_seconds`` is normal.
        """
        now = self._clock()
        return max(now - scope.heard for scope in self._scopes)

    @property
    def last_error(self) -> str | None:
        """Why pods cannot be followed at the moment, or ``None``."""
        return next((scope.error for scope in self._scopes if scope.error is not None), None)

    def refresh(self) -> None:
        """Do nothing: the API server reports changes."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        age = round(self.age, 1)
        status: dict[str, object] = {"discovery": "kubernetes", "pods_age_seconds": age}
        if self.last_error is not None:
            status["discovery_error"] = self.last_error
        return status

    async def start(self) -> None:
        """Start to follow the pods. The API server need not be reachable yet.

        Raises:
            CredentialsError: No usable credentials were found.
        """
        try:
            api = await self._open()
        except CredentialsError as error:
            raise CredentialsError(
                "no pods are configured: set 'endpoints' (LORA_ROUTER_ENDPOINTS, --endpoints) to a "
                f"YAML file that lists them, or give access to a Kubernetes cluster: {error}"
            ) from error
        await api.close()
        self._tasks = [
            self._supervisor.keep("pod-watch", partial(self._follow, scope), about=str(scope))
            for scope in self._scopes
        ]

    async def stop(self) -> None:
        """Stop following. The fleet keeps its pods."""
        tasks, self._tasks = self._tasks, []
        await cancel(tasks)

    async def synced(self) -> None:
        """Wait until the pods of every namespace have been listed once."""
        await self._synced.wait()

    async def _follow(self, scope: "_Scope") -> None:
        options = WatchOptions(
            PodQuery(scope.namespace, self._options.selector),
            watch_seconds=self._options.watch_seconds,
        )
        async with aclosing(pod_events(self._open, options)) as events:
            async for event in events:
                # An event that cannot be applied ends this run of the task. The next run starts
                # with a list, so that the fleet lacks changes for no longer than the backoff.
                await self._apply_event(scope, event)

    async def _open(self) -> KubernetesApi:
        return await KubernetesApi.open(self._options.credentials)

    async def _apply_event(self, scope: "_Scope", event: PodEvent) -> None:
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
            message = "watch of %s recovered; %d pods"
            self._limit.log(log, logging.INFO, "recovered", message, scope, len(scope.pods))

    async def _listed(self, scope: "_Scope", objects: Sequence[PodObject]) -> None:
        pods: dict[str, Pod] = {}
        for number, found in enumerate(objects, start=1):
            pod = self._translated(found)
            if pod is not None:
                pods[pod.name] = pod
            if number % PODS_AT_ONCE == 0:
                await asyncio.sleep(0)  # Requests take precedence.
        self._observer.pod_events("listed", len(objects))
        first = not scope.listed
        scope.listed = True
        gone = scope.pods.keys() - pods.keys()
        if first:
            log.info("%s: %d pods, %d of them ready", scope, len(pods), _count_ready(pods.values()))
        await self._apply(scope, pods, gone, quiet=first)
        if all(other.listed for other in self._scopes):
            self._fleet.synced = True
            self._synced.set()

    async def _changed(self, scope: "_Scope", changes: Iterable[tuple[PodObject, bool]]) -> None:
        # Of several events of one pod that arrived together, the last one counts.
        pods: dict[str, Pod] = {}
        gone: set[str] = set()
        deleted = total = 0
        for found, exists in changes:
            total += 1
            deleted += not exists
            pod = self._translated(found) if exists else None
            if pod is None:
                pods.pop(found.full_name, None)
                gone.add(found.full_name)
            else:
                gone.discard(pod.name)
                pods[pod.name] = pod
        self._observer.pod_events("deleted", deleted)
        self._observer.pod_events("changed", total - deleted)
        await self._apply(scope, pods, gone, quiet=False)

    async def _apply(
        self, scope: "_Scope", pods: dict[str, Pod], gone: Iterable[str], *, quiet: bool
    ) -> None:
        known = scope.pods
        became_ready, stopped, left = [], [], []
        for name, pod in pods.items():
            was_ready = name in known and known[name].ready
            if pod.ready and not was_ready:
                became_ready.append(f"{name} ({pod.address})")
            elif was_ready and not pod.ready:
                stopped.append(name)
        # Update the fleet first: if that fails, the next list still differs from `known`.
        await update_fleet(self._fleet, tuple(pods.values()), tuple(gone))
        for name in gone:
            self._logged_problems.pop(name, None)
            if known.pop(name, None) is not None:
                left.append(name)
        known.update(pods)
        if not quiet:
            self._log_names("ready", became_ready)
            self._log_names("no longer ready", stopped)
            self._log_names("gone", left)

    def _translated(self, found: PodObject) -> Pod | None:
        name = found.full_name
        try:
            pod, problems = to_pod(found, self._options.ports)
        except Exception as error:
            # A fault in one pod must not affect the others.
            self._supervisor.failed("pod-watch", error, about=f"pod {name}")
            return None
        if problems and self._logged_problems.get(name) != problems:
            self._logged_problems[name] = problems
            for problem in problems:
                self._limit.log(log, logging.WARNING, "labels", "pod %s: %s", name, problem)
        return pod

    def _log_names(self, what: str, names: list[str]) -> None:
        if names:
            more = len(names) - _NAMES_IN_A_LINE
            listed = ", ".join(names[:_NAMES_IN_A_LINE]) + (f" and {more} more" if more > 0 else "")
            self._limit.log(log, logging.INFO, what, "pods %s: %s", what, listed)

    def _lost(self, scope: "_Scope", error: ApiError, retry_seconds: float) -> None:
        self._observer.discovery_lost(error.cause)
        if scope.error is None:
            stay = f"the last {len(scope.pods)} pods stay in use" if scope.listed else "no pods yet"
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
        scope.error = f"{scope}: {error}"


class _Scope:
    """What one watch covers, and its state."""

    def __init__(self, namespace: str | None, now: float) -> None:
        self.namespace = namespace
        self.pods: dict[str, Pod] = {}
        self.listed = False
        self.heard = now
        self.error: str | None = None

    def __str__(self) -> str:
        return "all namespaces" if self.namespace is None else f"namespace {self.namespace}"


def _count_ready(pods: Iterable[Pod]) -> int:
    return sum(pod.ready for pod in pods)
