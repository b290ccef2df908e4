"""Follows the TLS files, so that a renewed certificate is used without a restart.

The whole files are read, since their size and time stamp can stay the same, and a mounted Secret
replaces a symbolic link. Files that cannot be used, such as a certificate whose key is not written
yet, are logged once. The last good certificate then stays in use.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from lora_router.extproc.tls import TlsContents, TlsIdentity, TlsSource, load_tls, read_tls
from lora_router.extproc.transport_error import TransportError
from lora_router.log_limit import LogLimit
from lora_router.supervision import Supervisor, every
from lora_router.threads import in_thread

log = logging.getLogger("lora_router.extproc")

INTERVAL_SECONDS = 5.0
_SOON_SECONDS = 7 * 86400.0
"""Time before the end of a certificate from which on it is reported."""
_DAY = 86400.0


class UsesTls(Protocol):
    """What uses the certificate: a transport."""

    tls: TlsIdentity | None

    async def use_tls(self, identity: TlsIdentity) -> None:
        """Use a renewed certificate."""


class CertificateWatch:
    """Gives a transport the certificate that is in its files."""

    def __init__(
        self,
        files: TlsSource,
        transport: UsesTls,
        supervisor: Supervisor,
        *,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Create it. The files are not read yet.

        Args:
            files: The files.
            transport: A transport that has read the files at its start.
            supervisor: Runs the task.
            interval: Seconds between two reads of the files.
            clock: Returns seconds, monotonic.
            wall: Returns seconds since 1970.
        """
        self._files = files
        self._transport = transport
        self._supervisor = supervisor
        self._interval = interval
        self._clock = clock
        self._wall = wall
        self._due = asyncio.Event()
        self._refused_since: float | None = None
        self._limit = LogLimit(_DAY, clock=clock)
        self.error: str | None = None
        """Why the files are not in use, or ``None`` if they are."""

    def start(self) -> None:
        """Start to follow the files, after the transport has started."""
        self._warn_of_end()
        self._supervisor.keep("tls-files", self._watch, about=self._files.shown)

    def refresh(self) -> None:
        """Read the files now."""
        self._due.set()

    @property
    def expires(self) -> float:
        """When the certificate in use expires, in seconds since 1970; not a number: unknown."""
        used = self._transport.tls
        return float("nan") if used is None or used.expires is None else used.expires

    @property
    def refused_seconds(self) -> float:
        """Seconds for which the files have been newer than what is used; 0: they are in use."""
        return 0.0 if self._refused_since is None else self._clock() - self._refused_since

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        used = self._transport.tls
        status: dict[str, object] = {}
        if used is not None and used.expires is not None:
            status["tls_certificate_expires"] = _shown(used.expires)
            if self._ends_soon(used):
                status["tls_warning"] = self._end(used)
        if self.error is not None:
            status["tls_error"] = f"{self.error}; for {self.refused_seconds:.0f} s"
        return status

    async def look(self) -> None:
        """Read the files, and use what is in them if it is new."""
        used = self._transport.tls
        contents = None if used is None else used.contents
        try:
            found = await in_thread(lambda: _look_at(self._files, contents), "tls-files")
        except TransportError as error:
            self._refused(str(error))
            return
        if found is not None and self._has_expired(found) and used is not None:
            self._refused(f"{self._files.shown}: the certificate has expired")
            return
        if found is not None:
            await self._transport.use_tls(found)
            log.info("TLS certificate renewed%s", _until(found))
        elif self.error is not None:
            log.info("the TLS files hold the certificate in use again")
        self.error = self._refused_since = None
        self._warn_of_end()

    async def _watch(self) -> None:
        await every(self._interval, self._due, self.look)

    def _refused(self, error: str) -> None:
        if self._refused_since is None:
            self._refused_since = self._clock()
        if error != self.error:
            self.error = error
            used = self._transport.tls
            log.error(
                "%s; the last good certificate stays in use%s",
                error,
                "" if used is None else _until(used),
            )
        self._warn_of_end()

    def _warn_of_end(self) -> None:
        used = self._transport.tls
        if used is not None and self._ends_soon(used):
            self._limit.log(log, logging.WARNING, "end", "%s", self._end(used))

    def _ends_soon(self, used: TlsIdentity) -> bool:
        return used.expires is not None and used.expires - self._wall() < _SOON_SECONDS

    def _has_expired(self, identity: TlsIdentity) -> bool:
        return identity.expires is not None and identity.expires <= self._wall()

    def _end(self, used: TlsIdentity) -> str:
        assert used.expires is not None  # noqa: S101 -- the caller has checked it
        days = (used.expires - self._wall()) / _DAY
        when = f"expires in {days:.1f} days" if days > 0 else f"expired {-days:.1f} days ago"
        return f"the TLS certificate {when}: {self._files.shown}"


def _look_at(files: TlsSource, used: TlsContents | None) -> TlsIdentity | None:
    """Return what is in the files, or ``None`` if it is in use."""
    return None if read_tls(files) == used else load_tls(files)


def _until(identity: TlsIdentity) -> str:
    return "" if identity.expires is None else f", valid until {_shown(identity.expires)}"


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
