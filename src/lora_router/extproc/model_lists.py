"""Makes and keeps lists of models.

Rules:

- Pods that serve the same models share a catalog, so a list belongs to a set of catalogs. It is
  made once for each set, in steps with pauses between them. Requests that ask for it wait for it.
- The last few lists are kept. A list of a set that no pod has any more is dropped when others come.
- A client's filter chooses the set, so there are limits on how many lists are made and how many
  requests wait.
- Long documents leave at a limited rate. Otherwise a burst of requests would fill the queue of a
  gateway's connection, and the connection would be closed with all its other streams.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from lora_router.clock import Clock, Timer
from lora_router.extproc.byte_rate import ByteRate
from lora_router.extproc.model_documents import openai_list_in_steps
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.model_list import ModelList, list_in_steps
from lora_router.steps import Steps, all_at_once

log = logging.getLogger("lora_router.extproc")

WAIT_SECONDS = 10.0
"""The longest that a request waits for a list."""
MAX_KEPT = 4
"""Lists that are kept. Each has at most ``MAX_DOCUMENT_BYTES`` and a reference for each model."""
MAX_PENDING = 4
"""Sets of catalogs whose lists are not made yet."""
MAX_WAITING = 1024
"""Requests that wait for lists."""
SMALL = 1024
"""A list of at most this many models is made at once."""
_PAUSE = 3
"""A pause is this many times as long as the step before it, so a list takes a quarter of the
CPU."""
_LONGEST_PAUSE_SECONDS = 0.05
_AT_ONCE = 8
"""How many requests get their list in one turn of the event loop."""
LONG_BYTES = 64 * 1024
"""Documents from this length on leave at a limited rate."""
BYTES_PER_SECOND = 64 * 1024 * 1024
BURST_BYTES = 16 * 1024 * 1024
"""Bytes of long documents that may leave at once."""

OnMade = Callable[["Listing | None"], None]
"""Gets the list; ``None``: it could not be made in time."""


class Listing(Struct, frozen=True):
    """A list of models, and the document that contains all of it."""

    models: ModelList
    message: bytes
    """The answer to Envoy that contains OpenAI's document."""


class Waiting:
    """A request that waits for a list."""

    __slots__ = ("_lists", "catalogs", "on_made", "timer", "whole")

    seconds = WAIT_SECONDS

    def __init__(
        self,
        lists: "ModelLists",
        catalogs: frozenset[Catalog],
        on_made: OnMade,
        timer: Timer,
        *,
        whole: bool,
    ) -> None:
        self._lists = lists
        self.catalogs = catalogs
        self.whole = whole
        self.on_made: OnMade | None = on_made
        self.timer = timer

    def cancel(self) -> None:
        """Forget the request, because its client has left. Does nothing the second time."""
        self._lists.forget(self)


class ModelLists:
    """The lists of one fleet."""

    def __init__(
        self,
        clock: Clock,
        to_message: Callable[[bytes], bytes],
        *,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """Create it without lists.

        Args:
            clock: Calls the steps.
            to_message: Returns the answer to Envoy that contains a document.
            cpu_clock: Returns the seconds that this thread has worked.
        """
        self._clock = clock
        self._to_message = to_message
        self._cpu_clock = cpu_clock
        self._kept: OrderedDict[frozenset[Catalog], Listing] = OrderedDict()
        self._pending: OrderedDict[frozenset[Catalog], dict[Waiting, None]] = OrderedDict()
        self._steps: Steps[Listing] | None = None
        """The work on the first pending list."""
        self._due: deque[tuple[Waiting, Listing | None]] = deque()
        self._delivers = False
        self._rate = ByteRate(BURST_BYTES, BYTES_PER_SECOND, clock.now)
        self.waiting = 0
        """Requests that wait now."""

    def find(
        self, catalogs: frozenset[Catalog], on_made: OnMade, *, whole: bool
    ) -> Listing | Waiting | None:
        """Return the list of the models in some catalogs.

        Args:
            catalogs: What pods serve.
            on_made: Gets the list later, if it is not there yet.
            whole: Whether the client gets the whole document.

        Returns:
            The list; ``Waiting``: ``on_made`` is called once, unless the request is cancelled;
            ``None``: too many requests wait.
        """
        listing = self._kept.get(catalogs)
        if listing is not None:
            self._kept.move_to_end(catalogs)
        elif sum(map(len, catalogs)) <= SMALL:
            listing = self._keep(catalogs, all_at_once(self._listing_in_steps(catalogs)))
        if listing is not None:
            size = _counted_size(listing, whole=whole)
            if not size or (not self._due and not self._rate.seconds_until_room()):
                self._rate.take(size)
                return listing
        known = listing is not None or catalogs in self._pending
        if self.waiting >= MAX_WAITING or (not known and len(self._pending) >= MAX_PENDING):
            return None
        timer = self._clock.call_later(WAIT_SECONDS, lambda: self._end(waiting, None))
        waiting = Waiting(self, catalogs, on_made, timer, whole=whole)
        self.waiting += 1
        if listing is not None:
            self._due.append((waiting, listing))
            self._deliver_soon(0.0)
        else:
            self._pending.setdefault(catalogs, {})[waiting] = None
            if self._steps is None:
                self._begin()
        return waiting

    def forget(self, waiting: Waiting) -> OnMade | None:
        """Remove a request that waits; return what it waits with, the first time."""
        on_made, waiting.on_made = waiting.on_made, None
        if on_made is not None:
            waiting.timer.cancel()
            self.waiting -= 1
            self._pending.get(waiting.catalogs, {}).pop(waiting, None)
        return on_made

    def _begin(self) -> None:
        """Begin with the first pending list."""
        self._steps = self._listing_in_steps(next(iter(self._pending)))
        self._clock.call_later(0.0, self._step)

    def _step(self) -> None:
        steps = self._steps
        assert steps is not None  # noqa: S101 -- set while a step is scheduled
        began = self._cpu_clock()
        try:
            next(steps)
        except StopIteration as end:
            self._made(end.value)
        except Exception:
            log.exception("failed to make a list of models")
            self._made(None)
        else:
            pause = min((self._cpu_clock() - began) * _PAUSE, _LONGEST_PAUSE_SECONDS)
            self._clock.call_later(pause, self._step)

    def _made(self, listing: Listing | None) -> None:
        self._steps = None
        catalogs, waiting = self._pending.popitem(last=False)
        if listing is not None:
            self._keep(catalogs, listing)
        self._due.extend((each, listing) for each in waiting)
        self._deliver_soon(0.0)
        if self._pending:
            self._begin()

    def _deliver_soon(self, seconds: float) -> None:
        if not self._delivers:
            self._delivers = True
            self._clock.call_later(seconds, self._deliver)

    def _deliver(self) -> None:
        self._delivers = False
        pause = 0.0
        for _ in range(min(_AT_ONCE, len(self._due))):
            waiting, listing = self._due[0]
            if waiting.on_made is not None and listing is not None:
                size = _counted_size(listing, whole=waiting.whole)
                pause = self._rate.seconds_until_room() if size else 0.0
                if pause:
                    break
                self._rate.take(size)
            self._due.popleft()
            self._end(waiting, listing)
        if self._due:
            self._deliver_soon(pause)

    def _end(self, waiting: Waiting, listing: Listing | None) -> None:
        on_made = self.forget(waiting)
        if on_made is not None:
            try:
                on_made(listing)
            except Exception:
                log.exception("failed to answer a request for a list of models")

    def _keep(self, catalogs: frozenset[Catalog], listing: Listing) -> Listing:
        self._kept[catalogs] = listing
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return listing

    def _listing_in_steps(self, catalogs: Iterable[Catalog]) -> Steps[Listing]:
        models = yield from list_in_steps(tuple(catalogs))
        document = yield from openai_list_in_steps(models)
        return Listing(models, self._to_message(document))


def _counted_size(listing: Listing, *, whole: bool) -> int:
    """Return the length that counts for the rate; 0: the client gets a short document."""
    size = len(listing.message)
    return size if whole and size >= LONG_BYTES else 0
