"""Turns list and watch into one stream of changes of the pods.

The quirks of the protocol are handled here:

- A list is read in pages. If it expires while it is read, it is read once more from the start.
- A watch continues from the resource version of the list, of the last event or of the last
  bookmark. The server ends each watch after some time, and the next one continues from there.
- ``410 Gone`` means that the version is too old. A new list replaces everything, and pods that it
  does not contain are gone.
- After a lost connection, or a watch that the server does not end in time, the same watch is
  started again with exponential backoff. Each attempt after a failure reloads the credentials.

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
"""A watch that ends sooner without an event counts as a failure."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The complete list of pods. Known pods that are not in it are gone."""

    pods: tuple[PodObject, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """Events that arrived together: pods added, changed or deleted, in order."""

    pods: tuple[tuple[PodObject, bool], ...]
    """Each pod with whether it still exists."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The server confirmed that nothing changed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The pods cannot be followed at the moment. A retry follows."""

    error: ApiError
    retry_seconds: float


PodEvent = Listed | Changed | Alive | Lost

_pod_decoder = msgspec.json.Decoder(PodObject)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch."""

    query: PodQuery
    watch_seconds: int = 30
    """Server-side timeout of a watch."""
    page_limit: int = PAGE_LIMIT


async def pod_events(
    open_api: Callable[[], Awaitable[KubernetesApi]],
    options: WatchOptions,
    rng: random.Random | None = None,
) -> AsyncGenerator[PodEvent]:
    """Yield the changes of the pods for ever, starting with a complete list.

    Args:
        open_api: Opens a client with the current credentials.
        options: Which pods to watch, and how.
        rng: Source of the backoff's jitter, so that replicas do not all retry at the same time.
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
                            # A list alone is not a success: the watch after it may always fail.
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
    """Lists, watches, and remembers the version to continue from."""

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._version = ""

    async def follow(self, api: KubernetesApi) -> AsyncGenerator[PodEvent]:
        """Yield the changes until a call fails.

        Raises:
            ApiError: A call failed.
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
            return await self._list_pages(api)
        except ApiError as error:
            if error.cause != "expired":
                raise
        return await self._list_pages(api)

    async def _list_pages(self, api: KubernetesApi) -> Listed:
        pods: list[PodObject] = []
        next_page = ""
        while True:
            page = await api.page(
                self._options.query, limit=self._options.page_limit, next_page=next_page
            )
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
                # Yield the changes before an error first: the version is already past them.
                if changes:
                    yield Changed(tuple(changes))
                elif error is None:
                    yield Alive()
                if error is not None:
                    raise error
        if silent and time.monotonic() - began < _SHORT_SECONDS:
            raise ApiError("connect", "the server ended the watch immediately")
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
                # Continuing after the event would lose it. A new list replaces everything.
                self._version = ""
                return changes, ApiError("malformed", f"not a pod: {error}")
            self._version = found.metadata.resource_version
            if event.type in {"ADDED", "MODIFIED", "DELETED"}:
                changes.append((found, event.type != "DELETED"))
        return changes, None


class _Pause:
    """Exponential backoff with jitter."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._longest = FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._longest = FIRST_PAUSE_SECONDS

    def next(self) -> float:
        seconds = self._longest * self._rng.uniform(0.5, 1.0)
        self._longest = min(self._longest * 2, LONGEST_PAUSE_SECONDS)
        return seconds
