"""Turns list and watch into one stream of changes of the objects of one kind.

The quirks of the protocol are handled here:

- A list is read in pages. If it expires while it is read, it is read once more from the start.
- A watch continues from the resource version of the list, of the last event or of the last
  bookmark. The server ends each watch after some time, and the next one continues from there.
- ``410 Gone`` means that the version is too old. A new list replaces everything, and objects that
  it does not contain are gone.
- After a lost connection, or a watch that the server does not end in time, the same watch is
  started again with exponential backoff. Each attempt after a failure reloads the credentials.
- ``watch_pace`` says what else counts as a failure, so that nothing is repeated without a pause.

Source: the Kubernetes API's "Efficient detection of changes" and ``client-go``'s reflector.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from lora_router.discovery.kubernetes_api import (
    REQUEST_SECONDS,
    SILENCE_SECONDS,
    ApiError,
    Call,
    CredentialsError,
    KubernetesApi,
    WatchEvent,
    event_error,
    read_body,
    read_events,
)
from lora_router.discovery.watch_pace import WatchPace

PAGE_LIMIT = 250
"""Objects in a page: some milliseconds of decoding."""


class _HasVersion(Protocol):
    @property
    def resource_version(self) -> str: ...


class WatchedObject(Protocol):
    """What the record of an object must have."""

    @property
    def metadata(self) -> _HasVersion:
        """Its metadata."""


Item = TypeVar("Item", bound=WatchedObject)


@dataclass(frozen=True, slots=True)
class Listed(Generic[Item]):
    """The complete list of objects. Known objects that are not in it are gone."""

    objects: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Changed(Generic[Item]):
    """Events that arrived together: objects added, changed or deleted, in order."""

    objects: tuple[tuple[Item, bool], ...]
    """Each object with whether it still exists."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The server confirmed that nothing changed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The objects cannot be followed at the moment. A retry follows."""

    error: ApiError
    retry_seconds: float


ObjectEvent: TypeAlias = Listed[Item] | Changed[Item] | Alive | Lost


@dataclass(frozen=True, slots=True)
class ObjectQuery(Generic[Item]):
    """Which objects to list and watch, and how."""

    item: type[Item]
    """The record that one of them is decoded to."""
    call: Callable[[KubernetesApi], Call]
    """Returns the method of the client's API classes that lists them."""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    """What says which: the namespace or a label selector, for example."""
    watch_seconds: int = 30
    """Server-side timeout of a watch."""
    page_limit: int = PAGE_LIMIT
    """Objects of a page. 0: the whole list is one page."""


async def object_events(
    open_api: Callable[[], Awaitable[KubernetesApi]],
    query: ObjectQuery[Item],
    rng: random.Random | None = None,
) -> AsyncGenerator[ObjectEvent[Item]]:
    """Yield the changes of the objects for ever, starting with a complete list.

    Args:
        open_api: Opens a client with the current credentials.
        query: Which objects to watch, and how.
        rng: Source of the backoff's jitter, so that replicas do not all retry at the same time.
    """
    pace = WatchPace(query.watch_seconds, rng)
    follower = _Follower(query, pace)
    while True:
        try:
            api = await open_api()
            try:
                async with aclosing(follower.follow(api)) as events:
                    async for event in events:
                        yield event
            finally:
                await api.close()
        except CredentialsError as error:
            lost = ApiError("credentials", str(error))
        except ApiError as error:
            lost = error
        seconds = pace.pause_after(lost)
        yield Lost(lost, seconds)
        await asyncio.sleep(seconds)


class _Metadata(msgspec.Struct, frozen=True):
    version: str = msgspec.field(default="", name="resourceVersion")
    next_page: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, Generic[Item], frozen=True):
    metadata: _Metadata
    items: list[Item] | None = None


class _Follower(Generic[Item]):
    """Lists, watches, and remembers the version to continue from."""

    def __init__(self, query: ObjectQuery[Item], pace: WatchPace) -> None:
        self._query = query
        self._pace = pace
        self._pages = msgspec.json.Decoder(_Page[query.item])  # type: ignore[name-defined]
        self._items = msgspec.json.Decoder(query.item)
        self._version = ""

    async def follow(self, api: KubernetesApi) -> AsyncGenerator[ObjectEvent[Item]]:
        """Yield the changes until a call fails.

        Raises:
            ApiError: A call failed.
        """
        while True:
            if not self._version:
                yield await self._list(api)
            try:
                async with aclosing(self._watch(api)) as events:
                    async for event in events:
                        yield event
            except ApiError as error:
                if error.cause != "expired":
                    raise
                self._version = ""
                if not self._pace.may_list_again():
                    raise

    async def _list(self, api: KubernetesApi) -> Listed[Item]:
        try:
            return await self._list_pages(api)
        except ApiError as error:
            if error.cause != "expired":
                raise
        return await self._list_pages(api)

    async def _list_pages(self, api: KubernetesApi) -> Listed[Item]:
        found: list[Item] = []
        next_page = ""
        while True:
            page = await self._page(api, next_page)
            found += page.items or ()
            next_page = page.metadata.next_page
            if not next_page:
                self._version = page.metadata.version
                self._pace.listed()
                return Listed(tuple(found))

    async def _page(self, api: KubernetesApi, next_page: str) -> _Page[Item]:
        """Return one page of the list.

        Raises:
            ApiError: The call failed. ``expired``: ``next_page`` belongs to a list that is too old.
        """
        query = self._query
        async with api.answer(
            query.call(api),
            REQUEST_SECONDS,
            **query.arguments,
            limit=query.page_limit or None,
            _continue=next_page or None,
            _request_timeout=REQUEST_SECONDS,
        ) as response:
            body = await read_body(response)
        try:
            return self._pages.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError("malformed", f"unexpected response: {error}") from None

    async def _watch(self, api: KubernetesApi) -> AsyncGenerator[ObjectEvent[Item]]:
        """Yield the changes until the server ends the watch.

        Raises:
            ApiError: The watch failed. ``expired``: the version is too old. ``timeout``: the server
                did not end the watch in time.
        """
        query, pace = self._query, self._pace
        time_limit = query.watch_seconds + SILENCE_SECONDS
        options: dict[str, Any] = {
            **query.arguments,
            "watch": True,
            "resource_version": self._version,
            "allow_watch_bookmarks": True,
            "timeout_seconds": query.watch_seconds,
            "_request_timeout": time_limit,
        }
        pace.asked()
        try:
            async with (
                api.answer(query.call(api), time_limit, **options) as response,
                aclosing(read_events(response)) as batches,
            ):
                pace.began()
                async for batch in batches:
                    changes, error = self._take(batch)
                    # Yield the changes before an error first: the version is already past them.
                    if changes:
                        yield Changed(tuple(changes))
                    elif error is None:
                        yield Alive()
                    if error is not None:
                        raise error
        finally:
            pace.ended()
        pace.check_end()
        yield Alive()

    def _take(self, batch: list[WatchEvent]) -> tuple[list[tuple[Item, bool]], ApiError | None]:
        changes: list[tuple[Item, bool]] = []
        for event in batch:
            if event.type == "ERROR":
                return changes, event_error(event)
            try:
                found = self._items.decode(event.object)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                # Continuing after the event would lose it. A new list replaces everything.
                self._version = ""
                return changes, ApiError("malformed", f"unexpected object: {error}")
            self._version = found.metadata.resource_version
            if event.type in {"ADDED", "MODIFIED", "DELETED"}:
                changes.append((found, event.type != "DELETED"))
        return changes, None
