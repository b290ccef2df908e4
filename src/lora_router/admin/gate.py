"""Who may see the page and the pages under ``/debug``.

With a token, whoever knows it. Without one, whoever reaches a loopback address, if the request was
meant for it: a web site can let its own name stand for 127.0.0.1, and a browser then sends the
site's requests there. Such a request names the site as its host. On other addresses nobody may see
them without a token.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import NamedTuple

from lora_router.admin.token import Token
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.admin")

WRONG_SECONDS = 1.0
"""How long the answer to a wrong token takes. The right one is accepted at once, always."""
MOST_WAITING = 16
"""Answers to wrong tokens that wait at a time. Further ones are refused at once."""

NOT_SERVED = (
    "The page and /debug are not served: admin_host is not a loopback address, and "
    "admin_token_file is not set. Set admin_token_file to a file with a token.\n"
)
WRONG_HOST = (
    "This host name is not served. Without admin_token_file, use localhost, 127.0.0.1 or [::1].\n"
)
MISSING = "Send the token in admin_token_file as Authorization: Bearer TOKEN, or sign in at /.\n"
WRONG = "This token is wrong.\n"
TOO_MANY = "Too many wrong tokens. Try again later.\n"


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: int
    text: str


class Gate:
    """Decides for each request. Used in the loop of the admin server only."""

    def __init__(
        self,
        host: str,
        token: Token | None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Create a gate.

        Args:
            host: The address that the server listens on.
            token: The token that is required. ``None``: there is none.
            sleep: Waits for a number of seconds.
        """
        self.token = token
        self._sleep = sleep
        self._loopback = is_loopback(host)
        self._hosts = {"localhost", "127.0.0.1", "::1", host.lower()}
        self._waiting = 0
        self._limit = LogLimit(60.0)

    async def refusal(
        self, *, host: str, authorization: str, session: str, sender: str
    ) -> Refusal | None:
        """Return why a request is refused. ``None``: it is not.

        Args:
            host: The header ``Host``.
            authorization: The header ``Authorization``, or empty.
            session: The cookie, or empty.
            sender: The address of the client, for the log.
        """
        if self.token is None:
            if not self._loopback:
                return Refusal(403, NOT_SERVED)
            return None if host_name(host) in self._hosts else Refusal(403, WRONG_HOST)
        await self.token.refresh()
        if self.token.is_sent_in(authorization) or self.token.has_signed(session):
            return None
        if not authorization:
            return Refusal(401, MISSING)
        return await self.wrong(sender)

    async def wrong(self, sender: str) -> Refusal:
        """Return the answer to a wrong token, after some time."""
        self._limit.log(
            log, logging.WARNING, "wrong", "a wrong token for the admin port, from %s", sender
        )
        if self._waiting >= MOST_WAITING:
            return Refusal(429, TOO_MANY)
        self._waiting += 1
        try:
            await self._sleep(WRONG_SECONDS)
        finally:
            self._waiting -= 1
        return Refusal(401, WRONG)


def is_loopback(host: str) -> bool:
    """Return whether only this host reaches a server that listens on an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(header: str) -> str:
    """Return the name in a ``Host`` header, without the port and brackets, in lower case."""
    name, colon, port = header.strip().lower().rpartition(":")
    if not colon or "]" in port:
        name = header.strip().lower()
    return name.removeprefix("[").removesuffix("]")
