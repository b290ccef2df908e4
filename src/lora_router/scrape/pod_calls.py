"""Sends a client's request to several pods: to load an adapter everywhere, or to unload it.

Pods that scrapes cannot reach are called last, because a silent pod holds its place until the
deadline.
"""

import asyncio
from collections.abc import Callable, Sequence

import aiohttp

from lora_router.connection_error import reason_of
from lora_router.fleet.pod_calls import PodRequest, PodResult
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.answer_start import answer_start
from lora_router.scrape.bounded_connection import BoundedConnector
from lora_router.scrape.places import Places
from lora_router.scrape.pod_access import PodAccess
from lora_router.supervision import Supervisor

_AT_ONCE = 16
"""How many pods are called at the same time, beside those that are slow."""
_ANSWER_BYTES = 1024
"""How much of a pod's answer is kept."""


class PodCalls:
    """Calls pods over HTTP."""

    def __init__(self, supervisor: Supervisor, access: PodAccess) -> None:
        """Create it.

        Args:
            supervisor: Runs the calls.
            access: Whose certificates are accepted. Its keys are not used: a client that has no
                key must not get what the router's key allows.
        """
        self._supervisor = supervisor
        self._access = access

    def call(
        self,
        states: Sequence[PodState],
        request: PodRequest,
        seconds: float,
        on_done: Callable[[Sequence[PodResult]], None],
    ) -> None:
        """Send a request to each pod, in the background. See ``CallsPods``."""
        work = self._call_all(states, request, seconds, on_done)
        self._supervisor.once("pod-calls", work, about=request.path)

    async def _call_all(
        self,
        states: Sequence[PodState],
        request: PodRequest,
        seconds: float,
        on_done: Callable[[Sequence[PodResult]], None],
    ) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        places = Places(_AT_ONCE)
        async with aiohttp.ClientSession(
            connector=BoundedConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"user-agent": "lora-router", "accept-encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
        ) as session:

            async def call(state: PodState) -> PodResult:
                try:
                    async with asyncio.timeout_at(deadline), places.place():
                        return await self._call(session, state, request)
                except TimeoutError:
                    return PodResult(state, 504, f"no answer within {seconds:g} s")
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    return PodResult(state, 502, reason_of(error))

            order = sorted(states, key=lambda state: state.unreachable_scrapes > 0)
            results = await asyncio.gather(*(call(state) for state in order))
        found = {result.state: result for result in results}
        on_done([found[state] for state in states])

    async def _call(
        self, session: aiohttp.ClientSession, state: PodState, request: PodRequest
    ) -> PodResult:
        headers = {"content-type": request.content_type} if request.content_type else {}
        if request.authorization:
            headers["authorization"] = request.authorization
        async with session.request(
            request.method,
            f"{state.pod.scheme}://{state.pod.address}{request.path}",
            data=request.body,
            headers=headers,
            ssl=self._access.current.tls,
            server_hostname=self._access.server_name,
            allow_redirects=False,
        ) as response:
            text = await answer_start(response, _ANSWER_BYTES)
            return PodResult(state, response.status, text.decode(errors="replace"))
