"""Follows a short list of resources: the endpoints of a Service, an InferencePool, objectives.

Each change that the watch announces leads to a new list, and nothing has to be put together from
events. ``object_watch`` does that for objects of which there are thousands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from kubernetes.aio.client.api.custom_objects_api import CustomObjectsApi

from lora_router.discovery.kubernetes_api import (
    REQUEST_SECONDS,
    SILENCE_SECONDS,
    ApiError,
    Credentials,
    CredentialsError,
    KubernetesApi,
    event_error,
    read_body,
    read_events,
)
from lora_router.discovery.watch_pace import WatchPace

MAX_LIST_BYTES = 16 * 1024 * 1024
_FIRST_REST_SECONDS, _LONGEST_REST_SECONDS = 0.1, 1.0
"""Time between two lists, however many events arrive. It grows while they arrive all the time."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ResourceQuery:
    """Which resources to list and watch."""

    group: str
    version: str
    plural: str
    """The resource's name in URLs, such as ``endpointslices``."""
    namespace: str
    name: str | None = None
    """Only the object with this name. A Role can be limited to it."""
    selector: str | None = None
    """A label selector."""


class _Metadata(msgspec.Struct, frozen=True):
    version: str = msgspec.field(default="", name="resourceVersion")


class _List(msgspec.Struct, Generic[Item], frozen=True):
    metadata: _Metadata
    items: list[Item] | None = None


class ResourceList(Generic[Item]):
    """Follows the resources of one query."""

    def __init__(
        self,
        query: ResourceQuery,
        item: type[Item],
        credentials: Credentials,
        *,
        watch_seconds: int = 30,
    ) -> None:
        """Create it, without connecting.

        Args:
            query: The resources.
            item: The record that one of them is decoded to.
            credentials: How to reach the API server.
            watch_seconds: Server-side timeout of a watch.
        """
        self._query = query
        self._decoder = msgspec.json.Decoder(_List[item])  # type: ignore[valid-type]
        self._credentials = credentials
        self._watch_seconds = watch_seconds

    async def follow(
        self,
        use: Callable[[Sequence[Item]], Awaitable[None]],
        lost: Callable[[ApiError], None],
    ) -> None:
        """Report the resources for ever.

        Args:
            use: Called with all of them: at once, after each change, and whenever a watch ends
                without one.
            lost: Called when they cannot be followed. Retries follow, with a backoff.
        """
        pace = WatchPace(self._watch_seconds)
        while True:
            try:
                api = await KubernetesApi.open(self._credentials)
                try:
                    await self._follow(api, pace, use)
                finally:
                    await api.close()
            except ApiError as raised:
                error = raised
            except CredentialsError as raised:
                error = ApiError("credentials", str(raised))
            lost(error)
            await asyncio.sleep(pace.pause_after(error))

    async def _follow(
        self,
        api: KubernetesApi,
        pace: WatchPace,
        use: Callable[[Sequence[Item]], Awaitable[None]],
    ) -> NoReturn:
        """Report the resources until a call fails.

        Raises:
            ApiError: A call failed.
        """
        rest = _FIRST_REST_SECONDS
        while True:
            version, items = await self._list(api)
            pace.listed()
            await use(items)
            try:
                if not await self._is_changed(api, pace, version):
                    pace.check_end()
            except ApiError as error:
                if error.cause != "expired" or not pace.may_list_again():
                    raise
            rest = _FIRST_REST_SECONDS if pace.lasted else min(2 * rest, _LONGEST_REST_SECONDS)
            await asyncio.sleep(rest)

    async def _list(self, api: KubernetesApi) -> tuple[str, Sequence[Item]]:
        options = self._options(REQUEST_SECONDS)
        async with api.answer(_call(api), REQUEST_SECONDS, **options) as response:
            body = await read_body(response, MAX_LIST_BYTES)
        try:
            found = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError("malformed", f"unexpected response: {error}") from None
        return found.metadata.version, found.items or ()

    async def _is_changed(self, api: KubernetesApi, pace: WatchPace, version: str) -> bool:
        """Wait for the next change, or for the end of a watch without one.

        Raises:
            ApiError: The watch failed. ``expired``: the version is too old.
        """
        time_limit = self._watch_seconds + SILENCE_SECONDS
        options = self._options(
            time_limit,
            watch=True,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=self._watch_seconds,
        )
        pace.asked()
        try:
            async with (
                api.answer(_call(api), time_limit, **options) as response,
                aclosing(read_events(response)) as batches,
            ):
                pace.began()
                async for batch in batches:
                    for event in batch:
                        if event.type == "ERROR":
                            raise event_error(event)
                        if event.type != "BOOKMARK":
                            return True
        finally:
            pace.ended()
        return False

    def _options(self, time_limit: float, **options: Any) -> dict[str, Any]:
        query = self._query
        return {
            "group": query.group,
            "version": query.version,
            "plural": query.plural,
            "namespace": query.namespace,
            "field_selector": None if query.name is None else f"metadata.name={query.name}",
            "label_selector": query.selector,
            "_request_timeout": time_limit,
            **options,
        }


def _call(api: KubernetesApi) -> Callable[..., Awaitable[Any]]:
    # The same call serves the groups that are built in, since all have URLs of one form.
    return CustomObjectsApi(api.client).list_namespaced_custom_object_without_preload_content
