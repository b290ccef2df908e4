"""Writes the status of ModelAdapter resources, while this router is the one that loads.

Rules:

- A status is written when it differs from what the API server has. ``WRITES_PER_SECOND`` bounds all
  writes, and one resource is written at most once in ``SHORTEST_SECONDS``.
- Resources are looked at in rounds, in slices of about a millisecond, and out of turn when they
  change. So nothing has to be remembered of what is due.
- A write names the resource version for which it was made. If that is not the newest, the API
  server refuses the write, and the watch brings the newest soon.
- If somebody else writes the same status, the pause of that resource doubles with each write, up to
  ``LONGEST_SECONDS``. So two writers do not fight.
- Two fleets may share a namespace. A router that has no pod for a resource does not write over the
  status of another fleet.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from lora_router.adapters.adapter_state import AdapterState
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.discovery.kubernetes_api import ApiError, CredentialsError
from lora_router.discovery.model_adapter_object import ModelAdapterStatus
from lora_router.discovery.model_adapter_record import Key, ModelAdapter
from lora_router.discovery.model_adapter_status import is_same, timed, wanted_status
from lora_router.discovery.model_adapter_store import StatusStore
from lora_router.log_limit import LogLimit
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.discovery")

WRITES_PER_SECOND = 20.0
SHORTEST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
"""Pause after the API server could not be reached, or refused because of the caller."""
_SLICE_SECONDS = 0.001
_REST_SECONDS = 0.05
"""Pause after a slice: the rounds take at most 2 % of the event loop."""
_ROUND_SECONDS = 1.0
"""Time between two rounds."""
_LAG_SECONDS = 10.0
"""How long the watch may take to bring what was written."""
_NO_STATE = AdapterState()


class Resources(Protocol):
    """The resources as last seen."""

    def __iter__(self) -> Iterator[ModelAdapter]:
        """Iterate over all of them."""

    def get(self, key: Key) -> ModelAdapter | None:
        """Return one of them."""

    def subscribe(self, listener: Callable[[Key], None]) -> None:
        """Call ``listener`` after each change of a resource."""


class States(Protocol):
    """The state of adapters in the fleet."""

    def forget(self) -> None:
        """Count pods anew from now on."""

    def read(self, adapter: DeclaredAdapter) -> AdapterState:
        """Return the state of an adapter."""


@dataclass(slots=True)
class _Written:
    """The last write of one resource."""

    status: ModelAdapterStatus
    over: str
    """The resource version that was written over."""
    version: str
    """The resource version of the result; empty if the write failed."""
    at: float
    pause: float
    """Seconds until it may be written again."""


class StatusWriter:
    """The writer of one router."""

    def __init__(
        self,
        resources: Resources,
        states: States,
        open_store: Callable[[], Awaitable[StatusStore]],
        *,
        may_write: Callable[[], bool],
        in_use: Callable[[DeclaredAdapter], DeclaredAdapter | str | None] = lambda each: each,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Create it, without connecting.

        Args:
            resources: The resources.
            states: The state of their adapters.
            open_store: Opens the store with the current credentials.
            may_write: Returns whether this router loads, and knows where adapters belong.
            in_use: Returns the adapter that the fleet serves for one that a resource declares. If
                none is, the reason. ``None``: that is not known yet.
            clock: Returns seconds, monotonic.
            sleep: Waits for a number of seconds.
            wall_clock: Returns the time that is written.
        """
        self._resources = resources
        self._states = states
        self._open_store = open_store
        self._may_write = may_write
        self._in_use = in_use
        self._clock = clock
        self._sleep = sleep
        self._wall_clock = wall_clock
        self._limit = LogLimit(60.0, clock=clock)
        self._written: dict[Key, _Written] = {}
        self._settled: dict[Key, tuple[ModelAdapter, AdapterState, str]] = {}
        """For what each resource has the right status already."""
        self._urgent: dict[Key, None] = {}
        """Resources that changed."""
        self._next_write = float("-inf")
        self._pause = FIRST_PAUSE_SECONDS
        self._store: StatusStore | None = None
        self.writes: Counter[str] = Counter()
        """Writes by result: ``written``, ``conflict`` or ``failed``."""
        self.error: str | None = None
        """Why statuses cannot be written at the moment."""
        resources.subscribe(self._changed)

    def start(self, supervisor: Supervisor) -> None:
        """Start to write. It is done until the supervisor stops."""
        supervisor.keep("model-adapter-status", self.run)

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        return {} if self.error is None else {"model_adapter_status_error": self.error}

    async def run(self) -> None:
        """Write what is due, for ever."""
        try:
            while True:
                try:
                    await self._round()
                except (ApiError, CredentialsError) as error:
                    await self._failed(error)
                await self._sleep(_ROUND_SECONDS)
        finally:
            await self._close()

    async def _round(self) -> None:
        """Look at all resources once, and at those that change meanwhile.

        Raises:
            ApiError, CredentialsError: Nothing can be written at the moment.
        """
        if not self._may_write():
            # A connection that is not used would be closed by the server.
            await self._close()
            self._urgent.clear()
            return
        self._states.forget()
        left = [record.key for record in self._resources]
        began = self._clock()
        while self._may_write():
            key = next(iter(self._urgent), None)
            if key is not None:
                del self._urgent[key]
            elif left:
                key = left.pop()
            else:
                break
            await self._look(key)
            if self._clock() - began >= _SLICE_SECONDS:
                await self._sleep(_REST_SECONDS)
                began = self._clock()

    async def _look(self, key: Key) -> None:
        record = self._resources.get(key)
        if record is None:
            self._written.pop(key, None)
            self._settled.pop(key, None)
            return
        status = self._due(record)
        if status is not None:
            wait = self._next_write - self._clock()
            if wait > 0:
                await self._sleep(wait)
            # It may have changed meanwhile.
            record = self._resources.get(key)
            status = None if record is None else self._due(record)
            if record is not None and status is not None and self._may_write():
                await self._write(record, status)

    def _due(self, record: ModelAdapter) -> ModelAdapterStatus | None:
        """Return the status that should be written now, or ``None``."""
        if record.left_to:
            return None
        state, conflict = _NO_STATE, ""
        if record.translation.adapter is not None:
            used = record.translation.adapter
            found = used if record.is_deleted else self._in_use(used)
            if found is None:
                return None
            if isinstance(found, str):
                conflict = found
            else:
                state = self._states.read(found)
        if not state.pods.fit and not state.loaded and record.is_of_other_fleet:
            return None
        seen = (record, state, conflict)
        if self._settled.get(record.key) == seen:
            return None
        status = wanted_status(record, state, conflict)
        if is_same(status, record.status):
            self._settled[record.key] = seen
            return None
        last = self._written.get(record.key)
        if last is not None:
            now = self._clock()
            if now < last.at + last.pause:
                return None
            is_unchanged = record.version in {last.over, last.version}
            if is_unchanged and last.version and is_same(status, last.status):
                return None  # The definition of the cluster has fewer fields.
            if record.version == last.over != last.version and now < last.at + _LAG_SECONDS:
                return None
        return timed(status, record.status, _rfc3339(self._wall_clock()))

    async def _write(self, record: ModelAdapter, status: ModelAdapterStatus) -> None:
        now = self._clock()
        self._next_write = now + 1 / WRITES_PER_SECOND
        if self._store is None:
            self._store = await self._open_store()
        written = _Written(status, record.version, "", now, self._pause_of(record, now))
        try:
            written.version = await self._store.write(record, status)
        except ApiError as error:
            if error.cause not in {"conflict", "missing", "status"}:
                raise
            if error.cause == "status":
                self.writes["failed"] += 1
                written.pause = min(2 * written.pause, LONGEST_SECONDS)
                line = "cannot write the status of ModelAdapter %s: %s"
                self._limit.log(log, logging.WARNING, "refused", line, record.key, error)
            else:
                self.writes["conflict"] += 1
        else:
            self.writes["written"] += 1
            self._well()
        self._written[record.key] = written

    def _pause_of(self, record: ModelAdapter, now: float) -> float:
        """Return the seconds after a write in which the resource is not written again."""
        last = self._written.get(record.key)
        if last is None or now >= last.at + 2 * last.pause + _LAG_SECONDS:
            return SHORTEST_SECONDS
        is_contested = (
            bool(last.version)
            and record.version not in {last.over, last.version}
            and not is_same(record.status, last.status)
        )
        if not is_contested and last.version:
            return SHORTEST_SECONDS
        return min(2 * last.pause, LONGEST_SECONDS)

    def _changed(self, key: Key) -> None:
        self._urgent[key] = None

    def _well(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        if self.error is not None:
            self.error = None
            self._limit.log(log, logging.INFO, "recovered", "statuses can be written again")

    async def _failed(self, error: ApiError | CredentialsError) -> None:
        self.writes["failed"] += 1
        self.error = str(error)
        cause = error.cause if isinstance(error, ApiError) else "credentials"
        if cause == "forbidden":
            self.error += " (the Role needs patch for modeladapters/status in model.aibrix.ai)"
        line = "cannot write the status of ModelAdapters: %s"
        self._limit.log(log, logging.WARNING, cause, line, self.error)
        # The next attempt reads the credentials again, and makes a new connection.
        await self._close()
        await self._sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    async def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with suppress(ApiError):
                await store.close()


def _rfc3339(time: datetime) -> str:
    """Return a time as conditions contain it, in seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
