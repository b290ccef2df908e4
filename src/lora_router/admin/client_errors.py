"""What the log says of requests that the admin port cannot read.

``aiohttp`` logs a traceback for each of them, and their content with it: the beginning of a header
that is too long, which may be a token. Whoever reaches the port could fill the log.
"""

import logging

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.admin")

_SERVER = logging.getLogger("aiohttp.server.admin")
_CLIENTS_FAULTS = (HttpProcessingError, web.RequestPayloadError, web.HTTPException)

UNREADABLE_BODY = (web.RequestPayloadError, ConnectionError, LookupError, UnicodeError)
"""What reading a body raises: wrong chunks or compression, a client that went away, an encoding
that does not exist, text that does not fit it."""


class ClientErrors(logging.Filter):
    """Writes one limited line in place of a traceback: the kind of error, and no content."""

    def __init__(self, limit: LogLimit | None = None) -> None:
        """Create it.

        Args:
            limit: Limits the lines, those of all clients together.
        """
        super().__init__()
        self._limit = limit or LogLimit(60.0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written as it is: it is no client's fault."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, _CLIENTS_FAULTS):
            return True
        # Its first argument is the address, unless the body of a request was at fault.
        sender = record.args[0] if isinstance(record.args, tuple) and record.args else None
        self._limit.log(
            log,
            logging.WARNING,
            "unreadable",
            "cannot read a request to the admin port%s: %s",
            f", from {sender}" if sender else "",
            type(error).__name__,
        )
        return False


def server_log() -> logging.Logger:
    """Return the log of an ``aiohttp`` server whose clients are not trusted."""
    _SERVER.filters[:] = [ClientErrors()]
    return _SERVER
