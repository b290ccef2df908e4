"""Discovery of the pods of an InferencePool.

The pool says which labels its pods have and on which ports they serve. The pods themselves are
followed as without a pool. A change of the pool replaces pods once the new ones have been listed.
While there is no pool, or no valid one, the pods of the last one stay in use and are still
followed.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from lora_router.discovery.kubernetes import DiscoveryObserver, KubernetesPods
from lora_router.discovery.kubernetes_api import ApiError, Credentials, CredentialsError
from lora_router.discovery.objectives import Objectives
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pool_object import (
    H2C,
    AlphaPoolObject,
    Pool,
    PoolError,
    PoolObject,
    pool_type,
    to_pool,
)
from lora_router.discovery.resource_list import ResourceList, ResourceQuery
from lora_router.log_limit import LogLimit
from lora_router.supervision import Supervisor, cancel

log = logging.getLogger("lora_router.discovery")


class PoolPods:
    """Follows one InferencePool and its pods."""

    def __init__(
        self,
        pods: KubernetesPods,
        query: ResourceQuery,
        credentials: Credentials,
        observer: DiscoveryObserver,
        supervisor: Supervisor,
        *,
        objectives: Objectives | None = None,
        watch_seconds: int = 30,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it, without connecting.

        Args:
            pods: Follows pods of that namespace, and is not started.
            query: The pool (``pool_query``).
            credentials: How to reach the API server.
            observer: Counts failures.
            supervisor: Runs the tasks.
            objectives: Follows the pool's objectives.
            watch_seconds: Server-side timeout of a watch.
            clock: Returns seconds, monotonic.
        """
        self._pods = pods
        self._name = f"{query.namespace}/{query.name}"
        self._observer = observer
        self._supervisor = supervisor
        self._clock = clock
        self._list: ResourceList[PoolObject | AlphaPoolObject] = ResourceList(
            query, pool_type(query), credentials, watch_seconds=watch_seconds
        )
        self.pool: Pool | None = None
        """The last valid one."""
        self._seen = clock()
        """When it was last seen."""
        self._objectives = objectives
        self._tasks: list[asyncio.Task[None]] = []
        self._limit = LogLimit(10.0, clock=clock)
        self.last_error: str | None = None
        """Why the pool is not followed at the moment, or ``None``."""

    async def start(self) -> None:
        """Start to follow the pool. The API server need not be reachable yet.

        Raises:
            CredentialsError: No usable credentials were found.
        """
        try:
            await self._pods.check_credentials()
        except CredentialsError as error:
            raise CredentialsError(
                f"inference_pool={self._name}: needs access to a Kubernetes cluster: {error}"
            ) from error
        self._tasks = [self._supervisor.keep("inference-pool", self._follow, about=self._name)]
        if self._objectives is not None:
            follow = self._objectives.follow
            self._tasks.append(self._supervisor.keep("objectives", follow, about=self._name))

    async def stop(self) -> None:
        """Stop following. The fleet keeps its pods."""
        tasks, self._tasks = self._tasks, []
        await cancel(tasks)
        await self._pods.stop()

    async def synced(self) -> None:
        """Wait until the pods of the pool have been listed once."""
        await self._pods.synced()

    def refresh(self) -> None:
        """Do nothing: the API server reports changes."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        shown: dict[str, object] = {"name": self._name}
        if self.pool is not None:
            shown["selector"] = self.pool.selector
            shown["ports"] = self.pool.ports
            shown["app_protocol"] = self.pool.app_protocol
            shown["failure_mode"] = self.pool.failure_mode
            shown["age_seconds"] = round(self._clock() - self._seen, 1)
        if self.last_error is not None:
            shown["error"] = self.last_error
        return {
            **self._pods.status(),
            "discovery": "inference-pool",
            "inference_pool": shown,
            **({} if self._objectives is None else self._objectives.status()),
        }

    async def _follow(self) -> None:
        await self._list.follow(self._use, self._lost)

    async def _use(self, found: Sequence[PoolObject | AlphaPoolObject]) -> None:
        if not found:
            self._failed("it does not exist")
            return
        try:
            pool = to_pool(found[0])
        except PoolError as error:
            self._failed(str(error))
            return
        if pool != self.pool:
            await self._aim(pool)
        self._seen = self._clock()
        if self.last_error is not None:
            self.last_error = None
            log.info("InferencePool %s is followed again", self._name)

    async def _aim(self, pool: Pool) -> None:
        log.info(
            "InferencePool %s: pods with %s, ports %s, %s, failure mode %s",
            self._name,
            pool.selector,
            ", ".join(map(str, pool.ports)),
            pool.app_protocol,
            pool.failure_mode or "not set",
        )
        if pool.app_protocol == H2C:
            log.warning(
                "InferencePool %s: appProtocol %s: the gateway speaks HTTP/2 to the pods, and the "
                "router reads their metrics and models over HTTP/1.1, which they must serve too",
                self._name,
                H2C,
            )
        before = self.pool
        if before is None or (before.selector, before.ports) != (pool.selector, pool.ports):
            await self._pods.aim(pool.selector, PortRules(pool=pool.ports))
        # Only now: if this failed, the next run of the task repeats it.
        self.pool = pool

    def _lost(self, error: ApiError) -> None:
        self._observer.discovery_lost(error.cause)
        self._failed(str(error))

    def _failed(self, error: str) -> None:
        if error != self.last_error:
            stay = "the pods of the last one stay in use" if self.pool else "no pods yet"
            line = "InferencePool %s: %s; %s"
            self._limit.log(log, logging.WARNING, "failed", line, self._name, error, stay)
        self.last_error = error
