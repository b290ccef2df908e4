"""Tells peers which adapters are about to be unloaded, and takes in what they tell. No I/O.

Rules:

- One router loads for all of them. A pod answers 404 for an adapter that was unloaded, so the
  others must send it no more requests before.
- What they take out of a pod's list returns by itself after ``SECONDS``, if the pod still lists it:
  the router that loads may have died.
- An unload may come much later, once the last request of the adapter has ended. Until then, and
  until the call for it has ended, the router that loads tells them again. This also reaches peers
  that have just joined, and those that a message did not reach.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Protocol

from lora_router.clock import Timer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    MAX_NAME_BYTES,
    MAX_WITHDRAWALS,
    MAX_WITHDRAWN_SECONDS,
    PART_NAME_BYTES,
    WITHDRAWALS_BURST,
    WITHDRAWALS_PER_SECOND,
    byte_length,
    is_tellable,
)
from lora_router.peering.pb.peering_pb2 import PeerMessage, Withdrawal
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.report_reader import ReportError

SECONDS = 10.0
"""For how long peers send no requests. After an unload, lists have been read by then."""
AGAIN_SECONDS = 3.0
"""Time between two rounds that tell again. Two of them may be lost."""
AGAIN_AT_ONCE = 600
"""Adapters that are told again in a round: half of what peers accept. If there are more, those that
were told longest ago come first."""
MAX_KEPT = WITHDRAWALS_BURST
"""Adapters that are remembered to be told again. Those beyond are told once."""


class Lists(Protocol):
    """The lists of pods."""

    def take_out(self, state: PodState, names: Collection[str]) -> None:
        """Take adapters out of the fleet's list of a pod."""

    def put_back(self, state: PodState, names: Collection[str]) -> None:
        """Put adapters into the list again that were taken out, if the pod lists them."""


class Withdrawals:
    """What is withdrawn, as this router and its peers know it."""

    def __init__(self, hub: Hub, fleet: Fleet, lists: Lists) -> None:
        """Create it.

        Args:
            hub: All peers. It calls this from now on.
            fleet: The pods.
            lists: Takes in what peers tell.
        """
        self._hub = hub
        self._fleet = fleet
        self._lists = lists
        self._keys = PodKeys(fleet)
        self._budgets = Budgets(WITHDRAWALS_BURST, WITHDRAWALS_PER_SECOND, hub.now)
        self._until: dict[PodState, dict[str, float]] = {}
        """What peers have withdrawn, and when it returns by itself."""
        self._own: OrderedDict[tuple[PodState, str], None] = OrderedDict()
        """What this router has withdrawn. What was told longest ago comes first."""
        self._timer: Timer | None = None
        fleet.changes.pods.subscribe(self._pods_changed)
        hub.withdrawals = self

    def tell(self, state: PodState, names: Collection[str], *, ends: bool) -> None:
        """Tell peers that adapters get no more requests on a pod, or that they do again."""
        of_pod = self._until.get(state, {})
        of_peers = [name for name in names if name in of_pod]
        if ends:
            self._put_back(state, of_peers)
        else:
            for name in of_peers:
                del of_pod[name]  # From now on this router says how long it stays out.
        for name in names:
            self._own.pop((state, name), None)
            if not ends and len(self._own) < MAX_KEPT:
                self._own[state, name] = None
        self._send(((state, name) for name in names), 0.0 if ends else SECONDS)
        self._tell_again_later()

    def unloaded(self, state: PodState, name: str) -> None:
        """Tell peers for the last time that an adapter gets no requests, because it is unloaded.

        So it does not return to a peer's list before that list has been read.
        """
        self._own.pop((state, name), None)
        self._send([(state, name)], SECONDS)

    def received(self, name: str, message: Collection[Withdrawal]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """
        if len(message) > MAX_WITHDRAWALS:
            raise ReportError("too-large", f"more than {MAX_WITHDRAWALS} withdrawals")
        if name not in self._hub.peers or not self._budgets.spend(name, len(message)):
            return
        begun: dict[PodState, list[str]] = {}
        ended: dict[PodState, list[str]] = {}
        seconds = 0.0
        for each in message:
            if byte_length(each.adapter) > MAX_NAME_BYTES:
                raise ReportError("too-large", "a withdrawal has too long a name")
            state = self._keys.find(each.pod)
            if state is not None and (state, each.adapter) not in self._own:
                (begun if each.milliseconds else ended).setdefault(state, []).append(each.adapter)
                seconds = max(seconds, min(MAX_WITHDRAWN_SECONDS, each.milliseconds / 1000))
        for state, names in begun.items():
            self._take_out(state, names, seconds)
        for state, names in ended.items():
            of_pod = self._until.get(state, {})
            self._put_back(state, [each for each in names if each in of_pod])

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more. What it withdrew returns."""
        self._budgets.forget(name)

    # What this router has withdrawn

    def _tell_again_later(self) -> None:
        if self._own and self._timer is None:
            self._timer = self._hub.call_later(AGAIN_SECONDS, self._tell_again)

    def _tell_again(self) -> None:
        self._timer = None
        rows = tuple(islice(self._own, AGAIN_AT_ONCE))
        for row in rows:
            self._own.move_to_end(row)
        self._send(rows, SECONDS)
        self._tell_again_later()

    def _send(self, rows: Iterable[tuple[PodState, str]], seconds: float) -> None:
        found = (
            Withdrawal(pod=key, adapter=name, milliseconds=int(1000 * seconds))
            for state, name in rows
            if is_tellable(name) and (key := self._keys.key(state)) is not None
        )
        for part in _parts(found):
            self._hub.send_to_all(PeerMessage(withdrawals=part).SerializeToString())

    # What peers have withdrawn

    def _take_out(self, state: PodState, names: Collection[str], seconds: float) -> None:
        of_pod = self._until.setdefault(state, {})
        # What is told again is out already: to change the list once more would cost much.
        new = [name for name in names if name not in of_pod]
        of_pod.update(dict.fromkeys(names, self._hub.now() + seconds))
        if new:
            self._lists.take_out(state, new)
        self._hub.call_later(seconds, lambda: self._expire(state, names))

    def _expire(self, state: PodState, names: Collection[str]) -> None:
        now, of_pod = self._hub.now(), self._until.get(state, {})
        self._put_back(state, [name for name in names if of_pod.get(name, now + 1.0) <= now])

    def _put_back(self, state: PodState, names: Collection[str]) -> None:
        if names:
            of_pod = self._until[state]
            for name in names:
                of_pod.pop(name, None)
            if not of_pod:
                del self._until[state]
            self._lists.put_back(state, names)

    # The pods

    def _pods_changed(self, states: Collection[PodState]) -> None:
        """Forget pods that left or are not ready: what is out of their lists is forgotten, too."""
        gone = {
            state
            for state in states
            if not state.pod.ready or self._fleet.get(state.pod.name) is not state
        }
        for state in gone:
            self._until.pop(state, None)
        if gone:
            for row in [row for row in self._own if row[0] in gone]:
                del self._own[row]


def _parts(rows: Iterable[Withdrawal]) -> Iterator[list[Withdrawal]]:
    """Yield rows in parts that are not too large for a message."""
    part: list[Withdrawal] = []
    size = 0
    for row in rows:
        part.append(row)
        size += byte_length(row.adapter)
        if len(part) >= MAX_WITHDRAWALS or size >= PART_NAME_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
