"""Why a connection of ``aiohttp`` failed, in a few words."""

import os

from aiohttp import ClientConnectorError, ClientSSLError


def reason_of(error: BaseException) -> str:
    """Return why, without the address, which the caller names.

    ``aiohttp`` says ``Cannot connect to host 10.0.0.7:8000 ssl:default [Connect call failed
    ('10.0.0.7', 8000)]``, also where there is no TLS. The system says ``Connection refused``.
    """
    if isinstance(error, ClientConnectorError) and not isinstance(error, ClientSSLError):
        number = error.os_error.errno
        if number is not None and number > 0:
            return os.strerror(number)
        # A name that cannot be resolved has a negative number, and its own text.
        return error.os_error.strerror or str(error.os_error) or str(error)
    return str(error) or type(error).__name__
