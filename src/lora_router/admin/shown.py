"""What the pages under ``/debug`` are made by, in the router's loop."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

BUSY = "the event loop does not respond"

_Made = TypeVar("_Made")


class Shown(NamedTuple):
    """A page under ``/debug``."""

    body: bytes
    """JSON."""
    status: int = 200


Show = Callable[[str, Mapping[str, str]], Awaitable[Shown]]
"""Makes the page under ``/debug`` that has a name (``pods``, ``decisions/ID``) from its query.

It is called in the router's loop. The first value of a query's key counts.
"""


Order = Callable[[Mapping[str, str]], Awaitable[Shown]]
"""Gives an order, such as to load an adapter, and makes the page about it. It is called in the
router's loop."""


class InRouter(Protocol):
    """Awaits something in the router's loop."""

    async def __call__(self, make: Callable[[], Awaitable[_Made]]) -> _Made:
        """Return what ``make()`` returns.

        Raises:
            TimeoutError: The router's loop does not respond.
        """
        ...
