"""``/healthz``, ``/readyz`` and ``/metrics``."""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from lora_router.telemetry.metrics import CONTENT_TYPE, Telemetry


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this router should receive new requests, and the reason if not."""

    ready: bool
    reason: str
    """One line for people."""
    details: dict[str, object]
    """Further fields of ``/readyz``."""


class AdminError(OSError):
    """The admin server cannot listen."""


class AdminServer:
    """Serves the admin pages from ``start`` to ``stop``."""

    def __init__(
        self, telemetry: Telemetry, readiness: Callable[[], Readiness], *, host: str, port: int
    ) -> None:
        """Create a server that does not listen yet.

        Args:
            telemetry: Returns the page that ``/metrics`` serves.
            readiness: Returns what ``/readyz`` reports.
            host: The address to listen on.
            port: The port; 0 selects a free one.
        """
        self._telemetry = telemetry
        self._readiness = readiness
        self._host = host
        self.port = port
        """The port it listens on after ``start``."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listen.

        Raises:
            AdminError: The address is in use or not available.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise AdminError(
                f"cannot listen on {self._host}:{self.port} for the admin pages: {error.strerror}"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        readiness = self._readiness()
        return web.json_response(
            {"ready": readiness.ready, "reason": readiness.reason, **readiness.details},
            status=200 if readiness.ready else 503,
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._telemetry.page(), headers={"content-type": CONTENT_TYPE})
