"""Watches the health of pods, probes those that get no requests, and asks new ones for a token.

The probe is a completion of one token, or an embedding, of the kind that failed. Only a request
shows whether the engine of a pod works: an API server whose engine is dead still serves
``/metrics`` and ``/v1/models``. It also refuses requests before it asks the engine, for example
completions of a model that only makes embeddings (400), or requests without the right key (401). So
status 2xx is a good answer, 5xx a failure (but not 501 and 505), and others say nothing.

A pod is not blamed for time in which this router's event loop stalled: its answer may be unread.
"""

import asyncio
import json
from contextlib import suppress

import aiohttp

from lora_router import __version__
from lora_router.clock import LateTurns
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.outliers import CLIENTS_FAULT, TICK_SECONDS
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.bounded_connection import BoundedConnector
from lora_router.scrape.first_requests import FirstRequests
from lora_router.scrape.places import Places
from lora_router.scrape.pod_access import PodAccess
from lora_router.supervision import Supervisor

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
_FIRST_REQUEST_SECONDS = 10.0
"""Timeout of a request that only has a pod state its number of slots."""
_AT_ONCE = 16
"""How many pods are probed at the same time, beside those that are slow."""
_STALL_SECONDS = 0.1
"""A timeout or a tick that comes this late shows that the event loop stalled."""
_MAX_STALLED = 2
"""How often a probe is repeated because of that."""


class HealthCheck:
    """The ticks and the probes of one router."""

    def __init__(
        self,
        fleet: Fleet,
        supervisor: Supervisor,
        *,
        probe: bool = True,
        slot_probe: bool = False,
        access: PodAccess | None = None,
    ) -> None:
        """Create a health check that does not run yet.

        Args:
            fleet: The pods.
            supervisor: Runs the ticks and the probes.
            probe: Whether to probe. Otherwise a client's request is the probe.
            slot_probe: Whether to ask pods for one token that have served nothing yet.
            access: The keys for pods, and whose certificates are accepted. Default: no keys.
        """
        self._fleet = fleet
        self._outliers = fleet.outliers
        self._supervisor = supervisor
        self._probe = probe
        self._access = access or PodAccess()
        self._places = Places(_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._first_requests = FirstRequests(fleet, self._ask_first) if slot_probe else None

    async def start(self) -> None:
        """Start to watch, and to probe if pods may be ejected."""
        self._supervisor.keep("health-check", self._run)
        if self._outliers is None and self._first_requests is None:
            return
        headers = {"user-agent": f"lora-router/{__version__}", "content-type": "application/json"}
        self._session = aiohttp.ClientSession(
            # A new connection for each probe: an old one would show the state of the past.
            connector=BoundedConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=headers,
        )
        if self._probe and self._outliers is not None:
            self._outliers.on_probe = self._start_probe

    async def stop(self) -> None:
        """Stop probing. The supervisor stops the ticks."""
        if self._outliers is not None:
            self._outliers.on_probe = None
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due, late_turns = loop.time(), LateTurns(_STALL_SECONDS)
        while True:
            if not late_turns.skips(loop.time() - due):
                self._fleet.check_health()
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)

    def _start_probe(self, state: PodState) -> None:
        self._supervisor.once("health-check", self._probe_pod(state), about=state.pod.name)

    async def _probe_pod(self, state: PodState) -> None:
        outliers = self._outliers
        assert outliers is not None  # noqa: S101 -- it asked for the probe
        good: bool | None = False
        try:
            async with self._places.place():
                good = await self._answers(
                    state, outliers.probe_timeout(state), tries=1 + _MAX_STALLED
                )
        finally:
            outliers.probed(state, good=good)

    def _ask_first(self, state: PodState) -> None:
        if self._session is not None:
            self._supervisor.once("slot-probe", self._have_one_token(state), about=state.pod.name)

    async def _have_one_token(self, state: PodState) -> None:
        async with self._places.place():
            await self._answers(state, _FIRST_REQUEST_SECONDS)

    async def _answers(self, state: PodState, seconds: float, *, tries: int = 1) -> bool | None:
        loop = asyncio.get_running_loop()
        for _ in range(tries):
            due = loop.time() + seconds
            with suppress(TimeoutError):
                return await self._asked(state, seconds)
            if loop.time() - due <= _STALL_SECONDS:
                break
        return False

    async def _asked(self, state: PodState, seconds: float) -> bool | None:
        """Ask a pod for a token; return whether its engine works, or ``None`` if that is open.

        Raises:
            TimeoutError: It has not answered in time.
        """
        if self._session is None:
            return False
        path, request = probe_of(state)
        try:
            async with self._session.post(
                f"{state.pod.scheme}://{state.pod.address}{path}",
                data=json.dumps(request).encode(),
                headers=self._access.current.api_headers,
                ssl=self._access.current.tls,
                server_hostname=self._access.server_name,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                return _is_good(response.status)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError, ValueError):
            return False


def _is_good(status: int) -> bool | None:
    """Return whether an answer to a probe shows that the engine works, or ``None``."""
    if 200 <= status < 300:
        return True
    return False if status >= 500 and status not in CLIENTS_FAULT else None


def probe_of(state: PodState) -> tuple[str, dict[str, object]]:
    """Return the path and the body of a probe."""
    model = min(state.base_models, default="")
    if state.health.failed_path.endswith(EMBEDDINGS):
        return EMBEDDINGS, {"model": model, "input": "a"}
    body: dict[str, object] = {"model": model, "max_tokens": 1, "temperature": 0}
    if state.health.failed_path.endswith(CHAT):
        return CHAT, body | {"messages": [{"role": "user", "content": "a"}]}
    return COMPLETIONS, body | {"prompt": "a"}
