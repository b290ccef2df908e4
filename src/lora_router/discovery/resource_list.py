"""Follows a short list of resources: the endpoints of a Service, an InferencePool, objectives.

Each change that the watch announces leads to a new list, and nothing has to be put together from
events. ``object_watch`` does that for objects of which there are thousands.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

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

MAX_LIST_BYTES = 16 * 1024 * 1024
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 10.0
_SHORTEST_SECONDS = 0.1
"""Time between two lists, however many events arrive."""

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
        self._random = random.Random()

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
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                api = await KubernetesApi.open(self._credentials)
                try:
                    while True:
                        version, items = await self._list(api)
                        await use(items)
                        await self._until_changed(api, version)
                        pause = FIRST_PAUSE_SECONDS
                        await asyncio.sleep(_SHORTEST_SECONDS)
                finally:
                    await api.close()
            except ApiError as error:
                lost(error)
            except CredentialsError as error:
                lost(ApiError("credentials", str(error)))
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _list(self, api: KubernetesApi) -> tuple[str, Sequence[Item]]:
        options = self._options(REQUEST_SECONDS)
        async with api.answer(_call(api), REQUEST_SECONDS, **options) as response:
            body = await read_body(response, MAX_LIST_BYTES)
        try:
            found = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError("malformed", f"unexpected response: {error}") from None
        return found.metadata.version, found.items or ()

    async def _until_changed(self, api: KubernetesApi, version: str) -> None:
        """Wait for the next change, or for the end of a watch without one.

        Raises:
            ApiError: The watch failed.
        """
        time_limit = self._watch_seconds + SILENCE_SECONDS
        options = self._options(
            time_limit,
            watch=True,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=self._watch_seconds,
        )
        async with (
            api.answer(_call(api), time_limit, **options) as response,
            aclosing(read_events(response)) as batches,
        ):
            async for batch in batches:
                for event in batch:
                    if event.type == "ERROR":
                        error = event_error(event)
                        if error.cause == "expired":
                            return
                        raise error
                    if event.type != "BOOKMARK":
                        return

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
