"""The token that the page and the pages under ``/debug`` require, and sessions of browsers.

A client proves that it knows the token with ``Authorization: Bearer TOKEN``. A browser cannot send
that header with a page or with events. It signs in once and then sends a cookie: the time until
which it is valid, signed with the token. The token itself is in no cookie, address or log line, and
another token ends all sessions.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lora_router.key_file import KeyFileError, read_key
from lora_router.log_limit import LogLimit
from lora_router.threads import in_thread

log = logging.getLogger("lora_router.admin")

SESSION_SECONDS = 12 * 3600
REREAD_SECONDS = 5.0
"""The file is read again if a request arrives so long after the last time."""
READ_SECONDS = 2.0
"""The request that caused it waits for at most that long, and uses the last token."""
_SCHEME = "bearer "
_SIGNED = b"lora-router admin session\0"
"""What a signature covers before the time, so that it is of no use anywhere else."""


class TokenError(KeyFileError):
    """The file holds no usable token. The message says why, without the token."""


def read_token(path: Path) -> bytes:
    """Return the token in a file, without white space around it.

    Raises:
        TokenError: The file cannot be read, or what it holds is not usable.
    """
    return read_key(path, "admin_token_file", TokenError)


class Token:
    """The token in a file, which may change. Used in the loop of the admin server only."""

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Read the file.

        Args:
            path: The file.
            now: Returns seconds, monotonic.
            wall: Returns seconds since 1970. Sessions end by it.

        Raises:
            TokenError: It holds no usable token.
        """
        self._path = path
        self._now = now
        self._wall = wall
        self._token = read_token(path)
        self._read_at = now()
        self._is_read = False
        """Whether a thread reads it. There is one at most."""
        self._limit = LogLimit(60.0, clock=now)

    async def refresh(self) -> None:
        """Read the file again, if it was not read lately. One that is unusable changes nothing."""
        now = self._now()
        if self._is_read or now - self._read_at < REREAD_SECONDS:
            return
        self._read_at = now
        self._is_read = True
        with suppress(TimeoutError):
            # A file system that hangs delays one request, once.
            async with asyncio.timeout(READ_SECONDS):
                await in_thread(self._read, "admin-token")

    def is_sent_in(self, authorization: str) -> bool:
        """Return whether an ``Authorization`` header has the token.

        Takes the same time whatever the token in it is.
        """
        scheme, token = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        return scheme.lower() == _SCHEME and self.matches(token.strip())

    def matches(self, token: str) -> bool:
        """Return whether this is the token. Takes the same time whatever it is."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def new_session(self) -> str:
        """Return a cookie for a client that knows the token."""
        until = str(int(self._wall()) + SESSION_SECONDS)
        return f"{until}.{self._signature(until)}"

    def has_signed(self, session: str) -> bool:
        """Return whether a cookie is a session that has not ended."""
        until, _, signature = session.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) < 16 and signature.isascii()):
            return False
        return hmac.compare_digest(signature, self._signature(until)) and self._wall() < int(until)

    def _signature(self, until: str) -> str:
        return hmac.digest(self._token, _SIGNED + until.encode(), "sha256").hex()

    def _read(self) -> None:
        """Read the file, in a thread of its own."""
        try:
            self._token = read_token(self._path)
        except TokenError as error:
            self._limit.log(log, logging.WARNING, "token", "%s; the last one stays in use", error)
        finally:
            self._is_read = False
