"""Reads the debug pages of a running router: what the commands do."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Self, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from lora_router.connection_error import reason_of
from lora_router.debug.pages import (
    NEWEST_DECISIONS,
    AdaptersPage,
    DecisionPage,
    DecisionsPage,
    ExplainPage,
    FactsPage,
    HeldPage,
    OrderPage,
    PodsPage,
    RoutersPage,
    StepsPage,
)

TIMEOUT_SECONDS = 15.0
"""Time for one page. A router waits for its peers for some seconds."""
MAX_PAGE_BYTES = 64 * 1024 * 1024
_MAX_TEXT = 300

_Page = TypeVar("_Page", bound=Struct)
_PATHS: Mapping[type[Struct], str] = {
    RoutersPage: "routers",
    PodsPage: "pods",
    AdaptersPage: "adapters",
    HeldPage: "held",
    DecisionsPage: "decisions",
    DecisionPage: "decision",
    ExplainPage: "explain",
    FactsPage: "facts",
    StepsPage: "steps",
}
_ORDER = "/debug/order"


class DebugPageError(Exception):
    """A page cannot be read. The message says why, and what to do about it."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of the answer. ``None``: there was none, or it is no page of a router."""


class Page(msgspec.Struct):
    """An error, as the pages tell it."""

    error: str = ""


class DebugClient:
    """Reads the pages of one admin port. Use it as an asynchronous context manager."""

    def __init__(self, url: str, token: str = "") -> None:
        """Create it.

        Args:
            url: The admin port, ``http://HOST:PORT``.
            token: The token that the pages require; empty: none is sent.
        """
        self._url = url.rstrip("/")
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def page(self, kind: type[_Page], query: Mapping[str, str] | None = None) -> _Page:
        """Return a page.

        Args:
            kind: Which page.
            query: The parameters.

        Raises:
            DebugPageError: It cannot be read.
        """
        body = await self.body(kind, query)
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise DebugPageError(f"{self._url}: no page of a lora-router: {error}") from None

    async def body(self, kind: type[Struct], query: Mapping[str, str] | None = None) -> bytes:
        """Return a page as JSON.

        Raises:
            DebugPageError: It cannot be read.
        """
        return await self.get(f"/debug/{_PATHS[kind]}", query)

    async def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        statuses: Collection[int] = (200,),
    ) -> bytes:
        """Return any page of the admin port.

        Args:
            path: Its path.
            query: The parameters.
            statuses: Those that an answer may have.

        Raises:
            DebugPageError: It cannot be read.
        """
        return await self._answer("GET", path, statuses, params=query)

    async def order(self, asked: Mapping[str, str]) -> OrderPage:
        """Give an order to the router that loads adapters, and return what became of it.

        Raises:
            DebugPageError: It was not obeyed.
        """
        body = await self._answer("POST", _ORDER, (200,), json=dict(asked))
        try:
            return msgspec.json.decode(body, type=OrderPage)
        except msgspec.MsgspecError as error:
            raise DebugPageError(f"{self._url}: no answer of a lora-router: {error}") from None

    async def _answer(
        self,
        method: str,
        path: str,
        statuses: Collection[int],
        *,
        params: Mapping[str, str] | None = None,
        json: Mapping[str, str] | None = None,
    ) -> bytes:
        session = self._session
        assert session is not None  # noqa: S101 -- it is used as a context manager
        try:
            async with session.request(
                method, self._url + path, params=params, json=json
            ) as response:
                body = await response.content.read(MAX_PAGE_BYTES + 1)
                if len(body) > MAX_PAGE_BYTES:
                    raise DebugPageError(f"{self._url}{path}: longer than {MAX_PAGE_BYTES} bytes")
                while len(body) <= MAX_PAGE_BYTES:
                    more = await response.content.read(MAX_PAGE_BYTES + 1 - len(body))
                    if not more:
                        break
                    body += more
                if response.status not in statuses:
                    raise DebugPageError(
                        self._refused(path, response.status, body), response.status
                    )
                return body
        except TimeoutError:
            raise DebugPageError(
                f"{self._url}: timeout, no answer within {TIMEOUT_SECONDS:g} s"
            ) from None
        except aiohttp.ClientConnectorError as error:
            why = reason_of(error)
            raise DebugPageError(
                f"{self._url}: no router answers ({why}); --admin names the admin port of another"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DebugPageError(f"{self._url}: {reason_of(error)}") from None

    def _refused(self, path: str, status: int, body: bytes) -> str:
        """Return what to say about a page with another status than 200."""
        try:
            told = msgspec.json.decode(body, type=Page).error
        except msgspec.MsgspecError:
            told = ""
        if told:
            return told
        text = " ".join(body.decode(errors="replace").split())[:_MAX_TEXT]
        return f"{self._url}{path} answered with status {status}: {text or 'no text'}"


async def last_slow_request(client: DebugClient) -> dict[str, str]:
    """Return the parameters of the page of the last request that was slow.

    Raises:
        DebugPageError: None is known, or it has no ID.
    """
    found = await client.page(DecisionsPage, {"slow": "true", "limit": "1"})
    if not found.decisions:
        raise DebugPageError(
            "no slow request is known; the setting slow_request_seconds says which ones are slow"
        )
    [last] = found.decisions
    if not last.request_id:
        raise DebugPageError("the last slow request has no x-request-id; see /debug/decisions")
    return {"id": last.request_id, "router": last.router}


async def gathered(
    client: DebugClient,
) -> tuple[RoutersPage, PodsPage, AdaptersPage, HeldPage, DecisionsPage]:
    """Return all pages that show a router at one glance.

    Raises:
        DebugPageError: One of them cannot be read.
    """
    routers, pods, adapters, held = await asyncio.gather(
        client.page(RoutersPage),
        client.page(PodsPage),
        client.page(AdaptersPage, {"limit": "100"}),
        client.page(HeldPage, {"limit": "20"}),
    )
    try:
        query = {"abnormal": "true", "limit": str(NEWEST_DECISIONS)}
        decisions = await client.page(DecisionsPage, query)
    except DebugPageError:  # They may not be recorded.
        decisions = DecisionsPage()
    return routers, pods, adapters, held, decisions
