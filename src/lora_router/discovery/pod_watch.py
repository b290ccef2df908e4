"""List and watch, turned into one plain stream of what happened to the pods.

The quirks of the protocol end here:

- A list comes in pages. If it grows too old while it is read, it is read again in one piece.
- A watch goes on from the version that the list, or the last event or bookmark, had. The server
  ends it every now and then; the next one goes on where it ended.
- ``410 Gone``: that version is too old. A fresh list takes its place, and what it does not name is
  gone.
- A connection that is cut, or on which nobody ends the watch in time: the same watch again, after
  a pause that grows. Each attempt after a failure reads the credentials anew.

Source: the Kubernetes API's "Efficient detection of changes" and ``client-go``'s reflector.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from lora_router.discovery.kubernetes_api import (
    ApiError,
    CredentialsError,
    KubernetesApi,
    PodQuery,
    WatchEvent,
    event_error,
)
from lora_router.discovery.pod_object import PodObject

PAGE_LIMIT = 250
"""Pods in a page: some milliseconds of decoding."""
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0
_SHORT_SECONDS = 1.0
"""A watch that ends sooner, with nothing in it, is counted as a failure."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All pods there are; others that were known are gone."""

    pods: tuple[PodObject, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """What arrived together: pods that came, changed or went, in order."""

    pods: tuple[tuple[PodObject, bool], ...]
    """Each with whether it still exists."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing happened, and the server said so."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The pods cannot be followed for now; it is tried again."""

    error: ApiError
    retry_seconds: float


PodEvent = Listed | Changed | Alive | Lost

_pod_decoder = msgspec.json.Decoder(PodObject)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to follow."""

    query: PodQuery
    watch_seconds: int = 30
    """Time after which the server ends a watch: how long silence is taken for peace."""
    page_limit: int = PAGE_LIMIT


async def pod_events(
    open_api: Callable[[], Awaitable[KubernetesApi]],
    options: WatchOptions,
    rng: random.Random | None = None,
) -> AsyncGenerator[PodEvent]:
    """Yield what happens to the pods, for ever, beginning with a full list.

    Args:
        open_api: Opens a client with the credentials of the moment.
        options: Which pods, and how.
        rng: For the pauses, which differ so that replicas do not all come back at once.
    """
    follower = _Follower(options)
    pause = _Pause(rng or random.Random())
    while True:
        try:
            api = await open_api()
            try:
                async with aclosing(follower.follow(api)) as events:
                    async for event in events:
                        if not isinstance(event, Listed):
                            # A list alone is no success: the watch after it may fail each time.
                            pause.reset()
                        yield event
            finally:
                await api.close()
        except CredentialsError as error:
            lost = ApiError("credentials", str(error))
        except ApiError as error:
            lost = error
        seconds = pause.next()
        yield Lost(lost, seconds)
        await asyncio.sleep(seconds)


class _Follower:
    """Lists, watches, and remembers the version to go on from."""

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._version = ""

    async def follow(self, api: KubernetesApi) -> AsyncGenerator[PodEvent]:
        """Yield what happens until something fails.

        Raises:
            ApiError: It did.
        """
        while True:
            if just_listed := not self._version:
                yield await self._list(api)
            try:
                async with aclosing(self._watch(api)) as events:
                    async for event in events:
                        just_listed = False
                        yield event
            except ApiError as error:
                if error.cause != "expired":
                    raise
                self._version = ""
                if just_listed:
                    raise

    async def _list(self, api: KubernetesApi) -> Listed:
        try:
            return await self._list_pages(api, self._options.page_limit)
        except ApiError as error:
            if error.cause != "expired":
                raise
        return await self._list_pages(api, 0)

    async def _list_pages(self, api: KubernetesApi, limit: int) -> Listed:
        pods: list[PodObject] = []
        next_page = ""
        while True:
            page = await api.page(self._options.query, limit=limit, next_page=next_page)
            pods += page.items or ()
            next_page = page.metadata.next_page
            if not next_page:
                self._version = page.metadata.version
                return Listed(tuple(pods))

    async def _watch(self, api: KubernetesApi) -> AsyncGenerator[PodEvent]:
        options = self._options
        began, silent = time.monotonic(), True
        watch = api.watch(options.query, self._version, seconds=options.watch_seconds)
        async with aclosing(watch) as batches:
            async for batch in batches:
                silent = False
                changes, error = self._take(batch)
                # What came before an error is told first: the version has moved past it.
                if changes:
                    yield Changed(tuple(changes))
                elif error is None:
                    yield Alive()
                if error is not None:
                    raise error
        if silent and time.monotonic() - began < _SHORT_SECONDS:
            raise ApiError("connect", "the server ended the watch at once")
        yield Alive()

    def _take(
        self, batch: list[WatchEvent]
    ) -> tuple[list[tuple[PodObject, bool]], ApiError | None]:
        changes: list[tuple[PodObject, bool]] = []
        for event in batch:
            if event.type == "ERROR":
                return changes, event_error(event)
            try:
                found = _pod_decoder.decode(event.object)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                # To go on behind it would be to lose it: a list takes its place.
                self._version = ""
                return changes, ApiError("malformed", f"not a pod: {error}")
            self._version = found.metadata.resource_version
            if event.type in {"ADDED", "MODIFIED", "DELETED"}:
                changes.append((found, event.type != "DELETED"))
        return changes, None


class _Pause:
    """Grows with each failure in a row, with jitter."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._longest = FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._longest = FIRST_PAUSE_SECONDS

    def next(self) -> float:
        seconds = self._longest * self._rng.uniform(0.5, 1.0)
        self._longest = min(self._longest * 2, LONGEST_PAUSE_SECONDS)
        return seconds
