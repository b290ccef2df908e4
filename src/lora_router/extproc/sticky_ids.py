"""Decides where a request goes that names an ID: to the pod that made it, or to the client."""

from collections.abc import Callable

from lora_router.clock import Clock
from lora_router.extproc.errors import ErrorAnswer, id_answer
from lora_router.extproc.id_search import NamedId
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.made_ids import MadeIds
from lora_router.fleet.pod_state import PodState

WAIT_SECONDS = 0.15
"""How long a request waits for peers to tell an ID that is unknown here. They tell it within 0.05
s, and a client may be that fast."""
LATE_SECONDS = 0.05
"""A call that is this late says that this process did not run. What peers told meanwhile has not
been read then, so the request waits again, once."""
MAX_WAITING = 1024
"""Requests that may wait. Others are refused at once."""


class WaitingForId:
    """A request that waits for an ID."""

    __slots__ = ("_call", "_clock", "_due_at", "_ids", "_timer")

    def __init__(self, ids: "StickyIds", clock: Clock, call: Callable[[], None]) -> None:
        self._ids = ids
        self._clock = clock
        self._call: Callable[[], None] | None = call
        self._due_at = clock.now() + WAIT_SECONDS
        self._timer = clock.call_later(WAIT_SECONDS, self._due)

    def cancel(self) -> None:
        """Forget the request. Does nothing the second time."""
        if self._call is not None:
            self._call = None
            self._ids.waiting -= 1
            self._timer.cancel()

    def _due(self) -> None:
        if self._clock.now() > self._due_at + LATE_SECONDS:
            self._timer = self._clock.call_later(WAIT_SECONDS, self._wait_is_over)
        else:
            self._wait_is_over()

    def _wait_is_over(self) -> None:
        call = self._call
        self.cancel()
        if call is not None:
            call()


class StickyIds:
    """The IDs that pods made, and what is done about others."""

    def __init__(
        self, fleet: Fleet, made: MadeIds, clock: Clock, *, pass_unknown: bool = False
    ) -> None:
        """Create it.

        Args:
            fleet: The pods.
            made: The IDs that are known.
            clock: The clock of the event loop.
            pass_unknown: Whether a request with an unknown ID goes to any pod. It is refused
                otherwise, unless there is only one pod that can have made the ID.
        """
        self.made = made
        self.waiting = 0
        """Requests that wait now."""
        self._fleet = fleet
        self._clock = clock
        self._pass_unknown = pass_unknown

    def maker(self, named: NamedId) -> PodState | ErrorAnswer | None:
        """Return the pod that made an ID.

        Returns:
            The pod; an error for the client; ``None``: route as if the request named no ID.
        """
        server = self.made.find(named.name)
        if server is not None:
            address, uid = server
            state = self._fleet.at(address)
            if state is not None and state.pod.uid == uid:
                return state
        if self._pass_unknown or len(self._fleet.ready()) <= 1:
            return None
        return id_answer(named.kind, named.name, named.param, is_gone=server is not None)

    def may_wait(self, named: NamedId) -> bool:
        """Return whether it is of use to wait for peers to tell an ID, and not too many do."""
        made = self.made
        return made.is_shared and self.waiting < MAX_WAITING and made.find(named.name) is None

    def wait(self, call: Callable[[], None]) -> WaitingForId:
        """Let a request wait for peers to tell an ID.

        Args:
            call: Called once, later, unless the request is cancelled. It must not keep the body of
                the request in memory, which is not counted while the request waits.
        """
        waiting = WaitingForId(self, self._clock, call)
        self.waiting += 1
        return waiting
