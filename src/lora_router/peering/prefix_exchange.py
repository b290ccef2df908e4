"""Tells peers which prompts went to which pods, and takes in what they tell. No I/O.

A prompt is told by the name of the whole, and by names of few of its beginnings: those of 1, 2, 4,
8, … chunks, without those that the pod had before. A pod that got a prompt has all of it, so the
next turn of a chat finds its pod by the one name of the turn before, whichever router gets it. What
other prompts share with it is known to a factor of two.

Rules:

- Every ``INTERVAL_SECONDS``, what was sent goes out, at most ``NAMES_AT_ONCE`` names of it, and
  about ``PART_NAME_BYTES`` of names of models. If more wait, prompts are told by their whole only.
  The oldest of too many are not told.
- Prompts below ``LEAST_TOKENS`` are not told. To process them again is cheaper than to tell.
- A peer that joins is told the last prompts (``newcomers``). So a router that was restarted
  knows where the running chats are.
- Nothing else is sent again. A peer that misses a message sends a turn to a pod that lacks it.
"""

from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from lora_router.clock import Timer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prompt import Prompt
from lora_router.peering.budget import Budgets
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    MAX_NAME_BYTES,
    MAX_PREFIX_NAMES,
    MAX_PREFIX_TOKENS,
    PART_NAME_BYTES,
    PREFIX_NAMES_BURST,
    PREFIX_NAMES_PER_SECOND,
    byte_length,
    is_tellable,
)
from lora_router.peering.newcomers import Newcomers
from lora_router.peering.pb import peering_pb2 as pb
from lora_router.peering.pod_keys import PodKeys
from lora_router.peering.report_reader import ReportError

INTERVAL_SECONDS = 0.25
"""The pause between two turns of a chat is longer."""
NAMES_AT_ONCE = 500
"""Names in a message that this router sends. A peer needs half a millisecond for them."""
LEAST_TOKENS = 256
AGAIN_SECONDS = 10.0
"""The shortest time between two answers to peers that join."""
_MAX_WAITING = 2_000
"""Prompts that wait to be told."""
_BUSY = 200
"""If more wait, prompts are told by their whole only."""
_TO_NEW_PEERS = 1_000
"""Prompts that a new peer gets: those of the last minutes, told within a second or two."""


class _Sent(NamedTuple):
    """A prompt that was sent."""

    state: PodState
    model: str
    names: tuple[int, ...]
    """The shortest beginning first, the whole last."""
    new_tokens: int
    """How many of its tokens the pod did not have."""


class PrefixExchange:
    """The prompts of this router and of its peers."""

    def __init__(self, hub: Hub, fleet: Fleet) -> None:
        """Create it.

        Args:
            hub: All peers. It calls this from now on.
            fleet: The pods, and what they have.
        """
        self.told = 0
        """Prompts that were told to peers."""
        self.untold = 0
        """Prompts that were not, because too many waited."""
        self.heard = 0
        """Prompts that peers told."""
        self._hub = hub
        self._prefixes = fleet.prefixes
        self._keys = PodKeys(fleet)
        self._waiting: deque[_Sent] = deque()
        self._last: deque[_Sent] = deque(maxlen=_TO_NEW_PEERS)
        self._timer: Timer | None = None
        self._newcomers = Newcomers(hub, AGAIN_SECONDS, self._tell_new_peers)
        self._budgets = Budgets(PREFIX_NAMES_BURST, PREFIX_NAMES_PER_SECOND, hub.now)
        fleet.prefixes.on_sent = self._sent
        hub.prefixes = self

    # To peers

    def joined(self) -> None:
        """Tell the last prompts, soon."""
        self._newcomers.joined()

    def _sent(self, state: PodState, model: str, prompt: Prompt, had: float) -> None:
        if prompt.tokens < LEAST_TOKENS:
            return
        names = _names(prompt, had) if len(self._waiting) <= _BUSY else (prompt.chunks[-1],)
        sent = _Sent(state, model, names, int(prompt.ends[-1] - had))
        self._last.append(sent)
        if self._hub.peers:
            self._wait(sent)

    def _wait(self, sent: _Sent) -> None:
        self._waiting.append(sent)
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self.untold += 1
        if self._timer is None:
            self._timer = self._hub.call_later(INTERVAL_SECONDS, self._tell)

    def _tell_new_peers(self) -> None:
        # Those that still wait are told anyway.
        for sent in tuple(self._last)[: len(self._last) - len(self._waiting)]:
            self._wait(sent)

    def _tell(self) -> None:
        self._timer = None
        waiting, by_target = self._waiting, dict[tuple[int, str], pb.SentPrompts]()
        count = size = 0
        while waiting and count < NAMES_AT_ONCE and size < PART_NAME_BYTES:
            sent = waiting.popleft()
            key = self._keys.key(sent.state)
            if key is None or not is_tellable(sent.model):
                continue  # The pod has left, or peers know no such model.
            message = by_target.get((key, sent.model))
            if message is None:
                message = by_target[key, sent.model] = pb.SentPrompts(pod=key, model=sent.model)
                size += byte_length(sent.model)
            message.names.extend(sent.names)
            message.name_counts.append(len(sent.names))
            message.new_tokens.append(sent.new_tokens)
            count += len(sent.names)
            self.told += 1
        if by_target:
            message_of_all = pb.PeerMessage(sent_prompts=by_target.values())
            self._hub.send_to_all(message_of_all.SerializeToString())
        if waiting:
            self._timer = self._hub.call_later(INTERVAL_SECONDS, self._tell)

    # From peers

    def received(self, name: str, message: Collection[pb.SentPrompts]) -> None:
        """Take in what a peer tells.

        Raises:
            ReportError: The message is malformed, or exceeds a bound.
        """
        if name not in self._hub.peers:
            return
        count = len(message) + sum(len(each.names) for each in message)
        if count > 2 * MAX_PREFIX_NAMES:
            raise ReportError("too-large", f"a message has more than {MAX_PREFIX_NAMES} prompts")
        if not self._budgets.spend(name, count):
            return
        for each in message:
            _check(each)
            state = self._keys.find(each.pod)
            if state is not None:
                self._hear(state, each.model, each)

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more. Pods keep what it sent."""
        self._budgets.forget(name)

    def _hear(self, state: PodState, model: str, message: pb.SentPrompts) -> None:
        names, at = message.names, 0
        for count, tokens in zip(message.name_counts, message.new_tokens, strict=True):
            self._prefixes.hear(state, model, names[at : at + count], tokens)
            at += count
            self.heard += 1


def _names(prompt: Prompt, had: float) -> tuple[int, ...]:
    """Return the names by which a prompt is told.

    Args:
        prompt: The prompt.
        had: How many tokens of it the pod had before.
    """
    chunks, ends = prompt.chunks, prompt.ends
    names, chunk, last = [], 1, len(chunks)
    while chunk < last:
        if ends[chunk - 1] > had:
            names.append(chunks[chunk - 1])
        chunk *= 2
    return (*names, chunks[-1])


def _check(message: pb.SentPrompts) -> None:
    counts: Sequence[int] = message.name_counts
    if len(counts) != len(message.new_tokens) or sum(counts) != len(message.names):
        raise ReportError("malformed", "the columns of prompts have different lengths")
    if counts and min(counts) < 1:
        raise ReportError("malformed", "a prompt has no name")
    if max(message.new_tokens, default=0) > MAX_PREFIX_TOKENS:
        raise ReportError("malformed", "a prompt is too long")
    if byte_length(message.model) > MAX_NAME_BYTES:
        raise ReportError("malformed", "the name of a model is too long")
