"""Asks all peers what people want to know, and answers what peers ask. No I/O.

Rules:

- A question goes to every peer at once. The answers are complete when every peer has answered, or
  after ``ANSWER_SECONDS``. Who has not answered by then is named.
- An answer goes in pieces of ``ANSWER_PIECE_BYTES``, one in ``_PIECE_SECONDS``, so that reports are
  not late because of it.
- What is asked and answered is text that this module does not read. Nothing that a peer says here
  has an effect on routing.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from lora_router.clock import Timer
from lora_router.peering.budget import Budget
from lora_router.peering.hub import Hub
from lora_router.peering.limits import (
    ANSWER_PIECE_BYTES,
    MAX_ANSWER_BYTES,
    MAX_QUESTION_BYTES,
    QUESTIONS_BURST,
    QUESTIONS_PER_SECOND,
)
from lora_router.peering.pb import peering_pb2 as pb
from lora_router.peering.report_reader import ReportError

ANSWER_SECONDS = 3.0
MAX_OPEN = 8
"""Questions of this router that are open at the same time."""
_MAX_UNANSWERED = 8
"""Questions of one peer whose answers are being made or sent."""
_PIECE_SECONDS = 0.02
_MAX_TRIES = 250
"""How often a piece is tried to send before all answers to its peer are given up: 5 s."""


class Answers(NamedTuple):
    """What peers answered."""

    texts: dict[str, bytes]
    """By the names of the peers."""
    missing: tuple[str, ...]
    """The peers that did not answer."""


Deliver = Callable[[Answers], None]


class _Open:
    """A question of this router, and the answers so far."""

    __slots__ = ("deliver", "texts", "timer", "waits_for")

    def __init__(self, deliver: Deliver) -> None:
        self.deliver = deliver
        self.texts: dict[str, bytearray] = {}
        self.waits_for: set[str] = set()
        self.timer: Timer | None = None


class _Asker:
    """A peer that asks."""

    __slots__ = ("budget", "pieces", "timer", "tries", "unanswered")

    def __init__(self, now: Callable[[], float]) -> None:
        self.budget = Budget(QUESTIONS_BURST, QUESTIONS_PER_SECOND, now)
        self.unanswered = 0
        self.pieces: deque[pb.Answer] = deque()
        """What is still to be sent to it."""
        self.tries = 0
        """How often the first piece could not be sent."""
        self.timer: Timer | None = None


class QuestionExchange:
    """The questions of this router and of its peers."""

    def __init__(self, hub: Hub) -> None:
        """Create it. Questions of peers get no answer until ``answer`` is set.

        Args:
            hub: All peers. It calls this from now on.
        """
        self.answer: Callable[[bytes, Callable[[bytes], None]], None] | None = None
        """Called with what a peer asks, and with what to call with the answer."""
        self._hub = hub
        self._number = 0
        self._open: dict[int, _Open] = {}
        self._askers: dict[str, _Asker] = {}
        """By the names of the peers."""
        hub.questions = self

    # To peers

    def ask(self, question: bytes, deliver: Deliver) -> None:
        """Ask all peers.

        Args:
            question: What to ask, of at most ``MAX_QUESTION_BYTES``.
            deliver: Called once, with the answers.
        """
        peers = list(self._hub.peers)
        if len(self._open) >= MAX_OPEN or len(question) > MAX_QUESTION_BYTES:
            deliver(Answers({}, tuple(peers)))
            return
        self._number += 1
        number = self._number
        message = pb.PeerMessage(question=pb.Question(number=number, text=question))
        data = message.SerializeToString()
        open_ = _Open(deliver)
        unsent = []
        for name in peers:
            if self._hub.send_to(name, data):
                open_.waits_for.add(name)
            else:
                unsent.append(name)
        if not open_.waits_for:
            deliver(Answers({}, tuple(unsent)))
            return
        open_.waits_for.update(unsent)  # They are missing in the end.
        self._open[number] = open_
        open_.timer = self._hub.call_later(ANSWER_SECONDS, lambda: self._close(number))

    def answered(self, name: str, answer: pb.Answer) -> None:
        """Take in what a peer answers.

        Raises:
            ReportError: The answer is too long.
        """
        open_ = self._open.get(answer.number)
        if open_ is None or name not in open_.waits_for:
            return
        text = open_.texts.setdefault(name, bytearray())
        text += answer.piece
        if len(text) > MAX_ANSWER_BYTES:
            del open_.texts[name]
            raise ReportError("too-large", "the answer to a question is too long")
        if not answer.more_follows:
            open_.waits_for.discard(name)
            if not open_.waits_for:
                self._close(answer.number)

    def _close(self, number: int) -> None:
        open_ = self._open.pop(number, None)
        if open_ is None:
            return
        if open_.timer is not None:
            open_.timer.cancel()
        missing = tuple(sorted(open_.waits_for))
        texts = {name: bytes(text) for name, text in open_.texts.items() if name not in missing}
        open_.deliver(Answers(texts, missing))

    # From peers

    def asked(self, name: str, question: pb.Question) -> None:
        """Answer what a peer asks, in pieces."""
        asker = self._askers.get(name)
        if asker is None:
            asker = self._askers[name] = _Asker(self._hub.now)
        if (
            self.answer is None
            or len(question.text) > MAX_QUESTION_BYTES
            or asker.unanswered >= _MAX_UNANSWERED
            or not asker.budget.spend(1)
        ):
            return
        asker.unanswered += 1
        number = question.number
        self.answer(question.text, lambda text: self._reply(name, asker, number, text))

    def _reply(self, name: str, asker: _Asker, number: int, text: bytes) -> None:
        """Send an answer after those that are being sent to the same peer."""
        if len(text) > MAX_ANSWER_BYTES:
            asker.unanswered -= 1
            return
        asker.pieces.extend(
            pb.Answer(
                number=number,
                piece=text[start : start + ANSWER_PIECE_BYTES],
                more_follows=start + ANSWER_PIECE_BYTES < len(text),
            )
            for start in range(0, max(1, len(text)), ANSWER_PIECE_BYTES)
        )
        if asker.timer is None:
            asker.tries = 0
            self._send(name, asker)

    def _send(self, name: str, asker: _Asker) -> None:
        """Send one piece now, and the others later."""
        asker.timer = None
        piece = asker.pieces[0]
        if self._hub.send_to(name, pb.PeerMessage(answer=piece).SerializeToString()):
            asker.pieces.popleft()
            asker.tries = 0
            asker.unanswered -= not piece.more_follows
        elif name not in self._hub.peers or asker.tries == _MAX_TRIES:
            asker.pieces.clear()
            asker.unanswered = 0
        else:
            asker.tries += 1
        if asker.pieces:
            asker.timer = self._hub.call_later(_PIECE_SECONDS, lambda: self._send(name, asker))

    def gone(self, name: str) -> None:
        """Forget a peer that stopped, or is not heard any more."""
        self._askers.pop(name, None)
        # If only peers are left that are gone, no answer comes any more.
        for number, open_ in tuple(self._open.items()):
            if open_.waits_for.isdisjoint(self._hub.peers):
                self._close(number)
