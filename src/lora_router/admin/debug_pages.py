"""The pages under ``/debug``: JSON about pods, adapters, held requests, decisions and routers."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from msgspec import Struct

from lora_router.admin.pages import Shown
from lora_router.debug.arguments import ArgumentsError
from lora_router.debug.gathering import Gathering, NoAnswerError
from lora_router.debug.pages import json_of

_ONE = "decisions/"
"""Before the ID of a request. It may have dots or line breaks, which a path loses: the page
``decision`` has the parameter ``id`` for it."""

Page = Callable[[Mapping[str, str]], Awaitable[Struct]]


class DebugPages:
    """Makes the pages, in the router's loop."""

    def __init__(self, gathering: Gathering) -> None:
        """Create it.

        Args:
            gathering: Asks all processes.
        """
        self._order = gathering.order
        self._pages: Mapping[str, Page] = {
            "routers": gathering.routers,
            "pods": gathering.pods,
            "adapters": gathering.adapters,
            "held": gathering.held,
            "decisions": gathering.decisions,
            "decision": gathering.decision,
            "explain": gathering.explain,
            "facts": gathering.facts,
            "steps": gathering.steps,
        }

    async def show(self, name: str, query: Mapping[str, str]) -> Shown:
        """Return the page that has a name, or an error that says what to ask instead."""
        page, query = self._pages.get(name), dict(query)
        if name.startswith(_ONE):
            page, query["id"] = self._pages["decision"], name.removeprefix(_ONE)
        if page is None:
            known = ", ".join(f"/debug/{each}" for each in self._pages)
            return _error(404, f"there is no page /debug/{name:.80}; there are {known}")
        return await _made(page, query)

    async def order(self, order: Mapping[str, str]) -> Shown:
        """Give an order to the router that loads adapters, and return the page about it."""
        shown = await _made(self._order, order)
        # Nothing is missing that could be named in another way: try again.
        return shown._replace(status=503) if shown.status == 404 else shown


async def _made(page: Page, query: Mapping[str, str]) -> Shown:
    try:
        return Shown(await json_of(await page(query)))
    except ArgumentsError as error:
        return _error(400, str(error))
    except NoAnswerError as error:
        return _error(404, str(error))


def _error(status: int, message: str) -> Shown:
    return Shown(msgspec.json.encode({"error": message}), status)
