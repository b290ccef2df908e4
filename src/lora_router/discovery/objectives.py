"""Follows the InferenceObjectives of a pool: names that requests may state, with priorities.

Sources: ``InferenceObjective`` of ``inference.networking.x-k8s.io/v1alpha2``, which names one pool,
and of ``llm-d.ai/v1alpha2``, which continues that API and may name several.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.discovery.resource_list import ResourceList, ResourceQuery
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.discovery")

GIE: Final = "inference.networking.x-k8s.io"
LLM_D: Final = "llm-d.ai"
ObjectiveGroup = Literal["inference.networking.x-k8s.io", "llm-d.ai"]

MAX_OBJECTIVES = 1000
MAX_PRIORITY = 2**31 - 1


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""


class _PoolRef(msgspec.Struct, frozen=True):
    name: str = ""
    kind: str = "InferencePool"


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    priority: int | None = None
    pool_ref: _PoolRef | None = None
    pool_refs: list[_PoolRef] | None = None


class ObjectiveObject(msgspec.Struct, frozen=True):
    """An InferenceObjective."""

    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()


def priorities_of(found: Sequence[ObjectiveObject], pool: str) -> dict[str, int]:
    """Return the priority of each objective that belongs to a pool, at most ``MAX_OBJECTIVES``."""
    priorities: dict[str, int] = {}
    for each in found:
        spec = each.spec
        refs = [*([spec.pool_ref] if spec.pool_ref else ()), *(spec.pool_refs or ())]
        if any(ref.kind == "InferencePool" and ref.name == pool for ref in refs):
            priority = max(-MAX_PRIORITY, min(spec.priority or 0, MAX_PRIORITY))
            priorities[each.metadata.name] = priority
        if len(priorities) == MAX_OBJECTIVES:
            break
    return priorities


class Objectives:
    """Follows the objectives of one pool. Without them, all requests have the same priority."""

    def __init__(
        self,
        pool: ResourceQuery,
        group: ObjectiveGroup,
        credentials: Credentials,
        use: Callable[[Mapping[str, int]], None],
        *,
        watch_seconds: int = 30,
    ) -> None:
        """Create it, without connecting.

        Args:
            pool: The InferencePool, which has a name.
            group: The API group of the objectives.
            credentials: How to reach the API server.
            use: Called with the priority of each objective.
            watch_seconds: Server-side timeout of a watch.
        """
        self._pool = pool.name or ""
        self._use = use
        self._limit = LogLimit(600.0)
        query = ResourceQuery(group, "v1alpha2", "inferenceobjectives", pool.namespace)
        self._list = ResourceList(query, ObjectiveObject, credentials, watch_seconds=watch_seconds)
        self._number = 0
        self.last_error: str | None = None
        """Why they cannot be followed, or ``None``. The last ones stay in use."""

    async def follow(self) -> None:
        """Follow them for ever."""
        await self._list.follow(self._found, self._lost)

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        status: dict[str, object] = {"inference_objectives": self._number}
        if self.last_error is not None:
            status["inference_objectives_error"] = self.last_error
        return status

    async def _found(self, objectives: Sequence[ObjectiveObject]) -> None:
        priorities = priorities_of(objectives, self._pool)
        self.last_error = None
        if len(priorities) == MAX_OBJECTIVES:
            self._limit.log(
                log,
                logging.WARNING,
                "many",
                "InferencePool %s has %d InferenceObjectives or more; the router uses as many",
                self._pool,
                MAX_OBJECTIVES,
            )
        self._number = len(priorities)
        self._use(priorities)

    def _lost(self, error: ApiError) -> None:
        if error.cause == "missing":
            # A cluster without this API has no objectives.
            self.last_error = None
            self._number = 0
            self._use({})
            return
        self.last_error = str(error)
        self._limit.log(
            log,
            logging.WARNING,
            error.cause,
            "cannot follow the InferenceObjectives of InferencePool %s: %s",
            self._pool,
            error,
        )
