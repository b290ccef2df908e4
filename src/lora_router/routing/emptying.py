"""Slots that are emptied for those who wait: for whom they are closed, and who is woken then.

At most a share of the fleet's slots is closed (``slot_closing``). When one opens again, the
adapters that wait on pods come first (``misplaced``), and then the queue that asked first for one
is asked whether it still needs one.

An adapter that just got a slot has few requests in it, while its other requests are about to
follow. Its slot is not closed before they have: it would be chosen, because it is the emptiest one.
"""

from collections.abc import Callable, Collection, Iterator

from lora_router.clock import Clock
from lora_router.fleet.catalog import BaseModels
from lora_router.fleet.pod_allotments import PodAllotments
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.closed_slots import ClosedSlots
from lora_router.routing.joining import Joiners
from lora_router.routing.misplaced import Misplaced, MisplacedAdapters
from lora_router.routing.overload import Overload
from lora_router.routing.pod_room import Rooms
from lora_router.routing.slot_queues import SlotQueues
from lora_router.routing.waiting_queue import Held, Queue


class Emptying:
    """The slots that one waiting room has emptied. Queues to ask for are given to ``wake``."""

    def __init__(
        self,
        closed: ClosedSlots,
        overload: Overload,
        peers: PodAllotments,
        joiners: Joiners,
        pods: Rooms,
        clock: Clock,
        wake: Callable[[Queue], None],
    ) -> None:
        """Create it.

        Args:
            closed: The closed slots.
            overload: How many slots may be closed.
            peers: Which slots peers have closed.
            joiners: Those that may join pods. They are woken for adapters whose slots open again.
            pods: Knows which pods serve a model.
            clock: The time.
            wake: Lets a queue be asked for.
        """
        self._closed = closed
        self._overload = overload
        self._peers = peers
        self._joiners = joiners
        self._pods = pods
        self._clock = clock
        self._wake = wake
        self._misplaced = MisplacedAdapters(closed, self.may_close, joiners.follows)
        self._impatient = SlotQueues[Queue]()
        """The queues that have waited for long, and for which no slot could be closed."""

    def may_close(self, bases: BaseModels, slots: int, *, has_one: bool = False) -> bool:
        """Return whether a further slot may be closed: peers' closed slots count as well."""
        closed = self._closed.count_of(bases) + self._peers.closed_slots.get(bases, 0) - has_one
        return closed < self._overload.most_closed(slots)

    def is_closable(self, pod: PodView, adapter: str) -> bool:
        """Return whether the slot of an adapter is open, and may be closed now."""
        return pod not in self._closed.closed_to(adapter) and not self._joiners.follows(
            pod, adapter
        )

    # Queues

    def held(self, queue: Queue, *, is_impatient: bool) -> None:
        """Close the slot that the last answer for a queue names, and open the one before it.

        Args:
            queue: The queue.
            is_impatient: Whether it has waited so long that it gets a slot as soon as possible.
        """
        slot = queue.hold.closed
        if slot != queue.closing:
            self.reopen(queue)
            if slot is not None and isinstance(slot[0], PodState):
                other = self._closed.close(queue, (slot[0], slot[1]), self._clock.now())
                if isinstance(other, Misplaced):
                    self._misplaced.robbed(other)
        if queue.closing is None and is_impatient:
            self._impatient.add(queue)
        else:
            self._impatient.remove(queue)

    def left(self, queue: Queue) -> None:
        """Open the slot of a queue that has no requests any more."""
        self._impatient.remove(queue)
        self.reopen(queue)

    def reopen(self, queue: Queue) -> None:
        """Open the slot that is closed for a queue, if one is."""
        adapter = self._closed.reopen(queue)
        if adapter is not None:
            self._opened(adapter)

    def joined(self, adapter: str) -> None:
        """Open what is closed for an adapter that has a slot by now, and wake its queues."""
        for owner in tuple(self.owners()):
            if isinstance(owner, Queue) and owner.question.model == adapter:
                self.reopen(owner)
                self._wake(owner)

    def _opened(self, adapter: str) -> None:
        """Wake the queues of the adapter in a slot that is open again, and close the next slot."""
        self._misplaced.serve(self._clock.now())
        pods = self._pods.serving(adapter)
        impatient = self._impatient.first(pods[0].base_models) if pods else None
        if impatient is not None:
            self._impatient.remove(impatient)
            self._wake(impatient)
        self._joiners.wake(None, (adapter,))

    # Adapters that wait on pods

    def waits_on(self, adapter: str) -> Collection[PodView]:
        """Return the pods on which requests for an adapter wait for a slot."""
        return self._misplaced.pods_of(adapter)

    def heir(self, held: Held, pod: PodView) -> Misplaced | None:
        """Keep the slot that is closed for a request on a pod, to which it is about to be sent."""
        queue, adapter = held.queue, held.request.adapter
        if queue is None or queue.closing is None or adapter is None:
            return None
        state = queue.closing[0]
        if state is not pod:
            return None
        heir = Misplaced(state, adapter, self._clock.now())
        self._closed.hand_over(queue, heir)
        return heir

    def misplaced(
        self, state: PodState, adapter: str, slots: int, heir: Misplaced | None = None
    ) -> None:
        """Close a slot of a pod for an adapter that waits there, now or as soon as possible.

        Args:
            state: The pod.
            adapter: The adapter, of which a request was just sent there.
            slots: The slots of the pods that could take its requests.
            heir: Has the slot that was closed for the request.
        """
        for reopened in self._misplaced.add(state, adapter, self._clock.now(), slots, heir):
            self._opened(reopened)

    def owners(self) -> Iterator[Queue | Misplaced]:
        """Yield the queues, and the adapters that wait on pods, for which slots are closed."""
        for owner in self._closed.owners():
            if isinstance(owner, Queue | Misplaced):
                yield owner

    def settle(self, states: Collection[PodState]) -> None:
        """Find out who waits no more on pods, after they changed."""
        if not self._misplaced:
            return
        for state in states:
            for adapter in self._misplaced.settle(state):
                self._opened(adapter)
        self._misplaced.serve(self._clock.now())
