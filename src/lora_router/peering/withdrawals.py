"""Tells peers which adapters are about to be unloaded, and takes in what they tell. No I/O.

One router loads for all of them. A pod answers 404 for an adapter that was unloaded, so the others
must send it no more requests before. What they take out of a pod's list returns by itself after
``SECONDS``, if the pod still lists it: the router that loads may have died.
"""

from collections.abc import Collection
from typing import Protocol

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    MAX_NAME_BYTES,
    MAX_WITHDRAWALS,
    MAX_WITHDRAWN_SECONDS,
    WITHDRAWALS_BURST,
    WITHDRAWALS_PER_SECOND,
    is_tellable,
)
from lora_router.peering.pb.peering_pb2 import PeerMessage, Withdrawal
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.report_reader import ReportError

SECONDS = 10.0
"""For how long peers send no requests. The unload has ended by then, and lists have been read."""


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
        self._lists = lists
        self._keys = PodKeys(fleet)
        self._budgets = Budgets(WITHDRAWALS_BURST, WITHDRAWALS_PER_SECOND, hub.now)
        self._until: dict[tuple[PodState, str], float] = {}
        hub.withdrawals = self

    def tell(self, state: PodState, names: Collection[str], *, ends: bool) -> None:
        """Tell peers that adapters get no more requests on a pod, or that they do again."""
        key = self._keys.key(state)
        if key is None:
            return
        milliseconds = 0 if ends else int(1000 * SECONDS)
        rows = [
            Withdrawal(pod=key, adapter=name, milliseconds=milliseconds)
            for name in names
            if is_tellable(name)
        ]
        for start in range(0, len(rows), MAX_WITHDRAWALS):
            message = PeerMessage(withdrawals=rows[start : start + MAX_WITHDRAWALS])
            self._hub.send_to_all(message.SerializeToString())

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
            if len(each.adapter) > MAX_NAME_BYTES:
                raise ReportError("too-large", "a withdrawal has too long a name")
            state = self._keys.find(each.pod)
            if state is not None:
                (begun if each.milliseconds else ended).setdefault(state, []).append(each.adapter)
                seconds = max(seconds, min(MAX_WITHDRAWN_SECONDS, each.milliseconds / 1000))
        for state, names in begun.items():
            self._take_out(state, names, seconds)
        for state, names in ended.items():
            self._put_back(state, [each for each in names if (state, each) in self._until])

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more. What it withdrew returns."""
        self._budgets.forget(name)

    def _take_out(self, state: PodState, names: Collection[str], seconds: float) -> None:
        until = self._hub.now() + seconds
        self._until.update(((state, name), until) for name in names)
        self._lists.take_out(state, names)
        self._hub.call_later(seconds, lambda: self._expire(state, names))

    def _expire(self, state: PodState, names: Collection[str]) -> None:
        now = self._hub.now()
        due = [name for name in names if self._until.get((state, name), now + 1.0) <= now]
        self._put_back(state, due)

    def _put_back(self, state: PodState, names: Collection[str]) -> None:
        for name in names:
            del self._until[state, name]
        if names:
            self._lists.put_back(state, names)
