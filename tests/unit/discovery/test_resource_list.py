"""A short list is followed by lists and watches, at a pace that no server can drive up."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from lora_router.discovery.endpoint_slices import Slice
from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.discovery.resource_list import ResourceList, ResourceQuery
from lora_router.supervision import cancel
from tests.unit.discovery.api_server import ApiServer, Document

PATH = "/apis/discovery.k8s.io/v1/namespaces/ml/endpointslices"
QUERY = ResourceQuery("discovery.k8s.io", "v1", "endpointslices", "ml")
GONE: Document = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
CHANGE: Document = {"type": "MODIFIED", "object": {}}
BOOKMARK: Document = {"type": "BOOKMARK", "object": {}}


class HastyServer(ApiServer):
    """Ends each watch at once, after the same events."""

    def __init__(self, *events: Document) -> None:
        super().__init__()
        self.items[PATH] = []
        self._lines = b"".join(json.dumps(each).encode() + b"\n" for each in events)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return await super()._answer(request)
        self.queries.setdefault(PATH, []).append(dict(request.query))
        return web.Response(body=self._lines)


class Followed:
    def __init__(self) -> None:
        self.lists = 0
        self.errors: list[str] = []

    async def use(self, _items: Sequence[Slice]) -> None:
        self.lists += 1

    def lost(self, error: ApiError) -> None:
        self.errors.append(error.cause)


@asynccontextmanager
async def following(server: ApiServer, folder: Path) -> AsyncIterator[Followed]:
    followed = Followed()
    async with server.run(folder) as kubeconfig:
        resources = ResourceList(QUERY, Slice, Credentials(kubeconfig))
        task = asyncio.create_task(resources.follow(followed.use, followed.lost))
        try:
            yield followed
        finally:
            await cancel({task})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ((), "connect"),
        ((BOOKMARK,), "connect"),
        ((GONE,), "expired"),
        ((BOOKMARK, GONE), "expired"),
    ],
    ids=["nothing", "bookmark", "gone", "bookmark-gone"],
)
async def test_watches_that_end_at_once_are_failures_with_growing_pauses(
    tmp_path: Path, events: tuple[Document, ...], cause: str
) -> None:
    async with following(HastyServer(*events), tmp_path) as followed:
        await asyncio.sleep(1.5)
        # The pauses are at least 0.125, 0.25, 0.5 and 1 s.
        assert 2 <= followed.lists <= 4
        assert followed.errors == followed.lists * [cause]


@pytest.mark.slow
async def test_changes_all_the_time_are_no_failures_and_read_at_a_slower_pace(
    tmp_path: Path,
) -> None:
    async with following(HastyServer(CHANGE), tmp_path) as followed:
        await asyncio.sleep(1.5)
        # The rests are 0.2, 0.4, 0.8 and 1 s.
        assert 2 <= followed.lists <= 4
        assert followed.errors == []
