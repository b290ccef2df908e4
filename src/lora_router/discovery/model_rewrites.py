"""Follows the InferenceModelRewrite resources of one InferencePool.

Source: ``inference.networking.x-k8s.io/v1alpha2`` of the Gateway API Inference Extension. If rules
contradict each other, the order is that of the extension: a rule for a name comes before a rule for
all names. Then the older resource counts, then the first one by name, then the first rule in it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.discovery.resource_list import ResourceList, ResourceQuery
from lora_router.log_limit import LogLimit
from lora_router.routing.model_rewrites import ANY, Rewrite, Target
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.discovery")

GROUP, VERSION, PLURAL = "inference.networking.x-k8s.io", "v1alpha2", "inferencemodelrewrites"
POOL_GROUP = "inference.networking.k8s.io"
MAX_REWRITES = 4096
_MAX_TARGETS = 64
_MAX_NAME = 512
_MAX_WEIGHT = 1_000_000

Use = Callable[[Iterable[Rewrite]], None]


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    uid: str = ""
    creation_timestamp: str = ""


class _PoolRef(msgspec.Struct, frozen=True):
    name: str = ""
    group: str = POOL_GROUP
    kind: str = "InferencePool"


class _Model(msgspec.Struct, frozen=True):
    value: str = ""
    type: str = "Exact"


class _Match(msgspec.Struct, frozen=True):
    model: _Model = _Model()


class _Target(msgspec.Struct, frozen=True, rename="camel"):
    model_rewrite: str = ""
    weight: int | None = None


class _Rule(msgspec.Struct, frozen=True):
    matches: list[_Match] | None = None
    targets: list[_Target] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    pool_ref: _PoolRef = _PoolRef()
    rules: list[_Rule] | None = None


class ModelRewriteObject(msgspec.Struct, frozen=True):
    """An InferenceModelRewrite."""

    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()


def to_rewrites(
    objects: Iterable[ModelRewriteObject], pool: str, group: str
) -> tuple[tuple[Rewrite, ...], tuple[str, ...]]:
    """Return the rewrites of a pool, those that count first, and what cannot be used.

    Args:
        objects: All resources of the namespace.
        pool: The name of the pool.
        group: The API group of the pool.
    """
    own = [
        each
        for each in objects
        if each.spec.pool_ref.kind == "InferencePool"
        and (each.spec.pool_ref.name, each.spec.pool_ref.group) == (pool, group)
    ]
    # Times in RFC 3339 of one zone sort as text.
    own.sort(key=lambda each: (each.metadata.creation_timestamp, each.metadata.name))
    rewrites: dict[str, Rewrite] = {}
    problems: list[str] = []
    for each in own:
        for number, rule in enumerate(each.spec.rules or ()):
            where = f"{each.metadata.name}: rules[{number}]"
            targets = tuple(_targets(rule))
            if not 0 < len(targets) <= _MAX_TARGETS:
                problems.append(f"{where}: it has no usable targets, or too many")
                continue
            for name in _names(rule):
                if name is None:
                    problems.append(f"{where}: it matches a name that cannot be used")
                elif len(rewrites) < MAX_REWRITES:
                    rewrites.setdefault(name, Rewrite(name, targets))
                else:
                    problems.append(f"{where}: more than {MAX_REWRITES} names are rewritten")
    return tuple(rewrites.values()), tuple(problems)


def _names(rule: _Rule) -> Iterator[str | None]:
    """Return the names that a rule matches; ``None`` for one that cannot be used."""
    if not rule.matches:
        yield ANY
    for match in rule.matches or ():
        value = match.model.value
        usable = match.model.type == "Exact" and _is_name(value) and not value.endswith(ANY)
        yield value if usable else None


def _targets(rule: _Rule) -> Sequence[Target]:
    """Return the targets of a rule; none, if one cannot be used: others must not get its share."""
    found = []
    for target in rule.targets or ():
        weight = 1 if target.weight is None else target.weight
        if not _is_name(target.model_rewrite) or not 0 < weight <= _MAX_WEIGHT:
            return ()
        found.append(Target(target.model_rewrite, weight))
    return found


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _MAX_NAME and name.isprintable() and name == name.strip()


class LastValid:
    """The last object of each name that could be used as a whole.

    An object that was changed into one that cannot be used must not lose its rules: without them,
    requests would go to another model. One that was deleted and created again has another uid, and
    gets no rules of before.
    """

    def __init__(self, pool: str, group: str) -> None:
        """Know none.

        Args:
            pool: The name of the pool.
            group: The API group of the pool.
        """
        self._pool = pool
        self._group = group
        self._objects: dict[str, ModelRewriteObject] = {}

    def put(self, objects: Iterable[ModelRewriteObject]) -> tuple[Sequence[Rewrite], Sequence[str]]:
        """Take in all objects; return the rewrites that count now, and what cannot be used."""
        known, used = self._objects, list[ModelRewriteObject]()
        self._objects = {}
        replaced: list[str] = []
        for each in objects:
            name = each.metadata.name
            last = known.get(name)
            _, problems = to_rewrites((each,), self._pool, self._group)
            if problems and last is not None and last.metadata.uid == each.metadata.uid:
                replaced += [f"{problem}; its last valid rules stay in use" for problem in problems]
                self._objects[name] = last
                used.append(last)
                continue
            if not problems:
                self._objects[name] = each
            used.append(each)
        rewrites, problems = to_rewrites(used, self._pool, self._group)
        return rewrites, (*replaced, *problems)


class FollowedRewrites:
    """Follows the resources of one pool, and hands their rewrites on."""

    def __init__(
        self,
        namespace: str,
        pool: str,
        group: str,
        use: Use,
        credentials: Credentials,
        supervisor: Supervisor,
        *,
        watch_seconds: int = 30,
    ) -> None:
        """Create it, without connecting.

        Args:
            namespace: The namespace of the pool and of its rewrites.
            pool: The name of the pool.
            group: The API group of the pool.
            use: Called with all rewrites after each change.
            credentials: How to reach the API server.
            supervisor: Runs the task.
            watch_seconds: Server-side timeout of a watch.
        """
        self._pool = pool
        self._last_valid = LastValid(pool, group)
        self._use = use
        self._supervisor = supervisor
        query = ResourceQuery(GROUP, VERSION, PLURAL, namespace)
        self._list: ResourceList[ModelRewriteObject] = ResourceList(
            query, ModelRewriteObject, credentials, watch_seconds=watch_seconds
        )
        self._rewrites: Sequence[Rewrite] | None = None
        """``None``: not read yet."""
        self._problems: Sequence[str] = ()
        self._error: str | None = None
        self._limit = LogLimit(10.0)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to follow them. They are followed until the supervisor stops."""
        self._task = self._supervisor.keep("model-rewrites", self._follow, about=self._pool)

    def unread(self) -> str | None:
        """Return why a router should not get requests yet, or ``None``.

        An API server that refuses does not keep it waiting: most names are not rewritten.
        """
        if self._rewrites is None and self._error is None:
            return "the InferenceModelRewrites have not been read yet"
        return None

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        shown: dict[str, object] = {"names": len(self._rewrites or ())}
        if self._problems:
            shown["problems"] = self._problems[:10]
        if self._error is not None:
            shown["error"] = self._error
        return {"inference_model_rewrites": shown}

    async def _follow(self) -> None:
        await self._list.follow(self._read, self._lost)

    async def _read(self, objects: Sequence[ModelRewriteObject]) -> None:
        rewrites, problems = self._last_valid.put(objects)
        if problems != self._problems:
            for problem in problems:
                self._limit.log(
                    log, logging.WARNING, "problem", "InferenceModelRewrite %s", problem
                )
            self._problems = problems
        if rewrites != self._rewrites:
            log.info("InferenceModelRewrites: %d names are rewritten", len(rewrites))
            self._rewrites = rewrites
            self._use(rewrites)
        self._error = None

    def _lost(self, error: ApiError) -> None:
        if self._error != str(error):
            self._error = str(error)
            line = "InferenceModelRewrites cannot be followed, the last ones stay in use: %s"
            self._limit.log(log, logging.WARNING, "lost", line, error)
