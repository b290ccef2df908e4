"""Tells peers which pods made which IDs, and takes in what they tell. No I/O.

Rules:

- A new ID goes out at once, so that peers know it about when the client does. Further IDs go out
  ``SHORTEST_SECONDS`` later, together. Requests with unknown IDs wait longer than that before they
  are refused (``extproc.sticky_ids``).
- A peer that joins is told the IDs that were used last (``newcomers``). So a router that was
  restarted knows them again.
- Nothing else is sent again. A peer that misses a message refuses the requests that name its IDs.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from lora_router.clock import Timer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.made_ids import MadeIds
from lora_router.fleet.pod_state import PodState
from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import IDS_BURST, IDS_PER_SECOND, MAX_IDS
from lora_router.peering.newcomers import Newcomers
from lora_router.peering.pb import peering_pb2 as pb
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.report_reader import ReportError

SHORTEST_SECONDS = 0.05
AGAIN_SECONDS = 5.0
"""The shortest time between two answers to peers that join."""
_AT_ONCE = 1_000
"""IDs in a message that this router sends: at most 130 KB."""
_MAX_WAITING = 20_000
"""IDs that wait to be sent. Older ones are not sent."""
_TO_NEW_PEERS = 2_000
"""IDs that a new peer gets, of those that this router learned and of those that it heard of."""


class IdExchange:
    """The IDs of this router and of its peers."""

    def __init__(self, hub: Hub, fleet: Fleet, made: MadeIds) -> None:
        """Create it.

        Args:
            hub: All peers. It calls this from now on.
            fleet: The pods.
            made: The IDs that are known.
        """
        self.told = 0
        """IDs that were told to peers."""
        self.heard = 0
        """IDs that peers told."""
        self._hub = hub
        self._fleet = fleet
        self._made = made
        self._keys = PodKeys(fleet)
        self._waiting: deque[tuple[str, PodState]] = deque(maxlen=_MAX_WAITING)
        self._sent_at = float("-inf")
        self._timer: Timer | None = None
        self._newcomers = Newcomers(hub, AGAIN_SECONDS, self._tell_new_peers)
        self._budgets = Budgets(IDS_BURST, IDS_PER_SECOND, hub.now)
        made.on_learned = self._learned
        made.share()
        hub.ids = self

    # To peers

    def joined(self) -> None:
        """Tell the IDs that were used last, soon."""
        self._newcomers.joined()

    def _learned(self, name: str, state: PodState) -> None:
        if not self._hub.peers:
            return
        self._waiting.append((name, state))
        if self._timer is None:
            wait = self._sent_at + SHORTEST_SECONDS - self._hub.now()
            self._timer = self._hub.call_later(max(0.0, wait), self._send)

    def _send(self) -> None:
        self._timer = None
        self._sent_at = self._hub.now()
        waiting = self._waiting
        self._tell(waiting.popleft() for _ in range(min(_AT_ONCE, len(waiting))))
        if waiting:
            self._timer = self._hub.call_later(SHORTEST_SECONDS, self._send)

    def _tell_new_peers(self) -> None:
        known = self._known()
        while part := list(islice(known, _AT_ONCE)):
            self._tell(part)

    def _known(self) -> Iterator[tuple[str, PodState]]:
        for name, (address, uid) in self._made.newest(_TO_NEW_PEERS):
            state = self._fleet.at(address)
            if state is not None and state.pod.uid == uid:
                yield name, state

    def _tell(self, ids: Iterable[tuple[str, PodState]]) -> None:
        by_pod: dict[int, list[str]] = {}
        for name, state in ids:
            key = self._keys.key(state)
            if key is not None:
                by_pod.setdefault(key, []).append(name)
                self.told += 1
        if by_pod:
            made = [pb.MadeIds(pod=key, ids=names) for key, names in by_pod.items()]
            self._hub.send_to_all(pb.PeerMessage(made_ids=made).SerializeToString())

    # From peers

    def received(self, name: str, message: Collection[pb.MadeIds]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message exceeds a bound.
        """
        if name not in self._hub.peers:
            return
        count = len(message) + sum(len(each.ids) for each in message)
        if count > 2 * MAX_IDS:
            raise ReportError("too-large", f"a message has more than {MAX_IDS} IDs")
        if not self._budgets.spend(name, count):
            return
        for each in message:
            state = self._keys.find(each.pod)
            if state is not None:
                for made in each.ids:
                    self._made.hear(made, state)
                self.heard += len(each.ids)

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
        self._budgets.forget(name)
