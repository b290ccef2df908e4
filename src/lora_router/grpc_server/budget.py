"""One budget of bytes for the unfinished messages and collected bodies of all connections. No I/O.

The rules:

- An ``Account`` states what one stream holds and what it still expects. What it expects is known
  early: a message begins with its length, and a body comes after its ``content-length``.
- A stream that expects no more than the initial window of a stream never waits. A quarter of the
  budget is kept for such streams.
- Every other stream receives more only after everything that it expects is reserved. So a stream
  that was let in can finish, whatever other streams do.
- Streams for which there is no room wait in order of arrival, with closed windows and with what
  they already hold. Who has waited too long is refused.
- Short streams do not wait for long ones: a quarter of what can be reserved is kept for them, and
  while a long one waits, they have no more than that. So neither keeps the other out.
- A stream that receives nothing although it has a reservation loses it to those that wait.
- What is held is always counted. If small streams need room, the stream that waits and came last is
  refused. If none waits, the stream that needs the room is refused.
- Output that the peer does not take counts too, so that nothing is let in for which memory lacks.
"""

from collections.abc import Callable
from typing import Protocol

from lora_router.grpc_server.waiting_bodies import LOOK_SECONDS, Stalls, WaitingBodies

CallLater = Callable[[float, Callable[[], None]], Callable[[], object]]
"""Calls a function once after a number of seconds; returns a function that cancels the call."""

_SHARE_OF_SMALL = 4
"""One part of so many is kept for small streams."""
_SHARE_OF_SHORT = 4
"""One part of so many of what can be reserved is kept for short streams."""
_SHORT = 128
"""A stream that expects one part of so many of what can be reserved, or less, is short."""
_GRACE_SECONDS = 10.0
_SLOWEST = 256 * 1024
"""Bytes that a stream with a reservation must receive in each second after the first
``_GRACE_SECONDS``. A slower one loses its reservation, but only if others have waited in vain."""


class Holder(Protocol):
    """A stream that holds bytes, as seen by the budget."""

    def admitted(self) -> None:
        """Let the peer send: everything that the stream expects is reserved."""

    def must_wait(self) -> None:
        """Handle that the stream waits for room."""

    def refused(self) -> None:
        """Forget what the stream holds, and answer that there is no room."""


class Budget:
    """The bytes of all streams. See the head of this file for its rules."""

    def __init__(
        self,
        limit: int,
        *,
        small: int,
        now: Callable[[], float],
        call_later: CallLater,
        wait_seconds: float,
    ) -> None:
        """Create a budget of which nothing is used.

        Args:
            limit: Maximum number of bytes.
            small: A stream that expects so many bytes or fewer never waits.
            now: Returns seconds, monotonic.
            call_later: Schedules the end of the longest wait.
            wait_seconds: Maximum time that a stream waits.
        """
        self.limit = limit
        self.small = small
        self.wait_seconds = wait_seconds
        self.largest = limit - limit // _SHARE_OF_SMALL
        """Bytes that can be reserved, which also bounds what one stream may expect."""
        self.short = self.largest // _SHORT
        """A stream that expects so many bytes or fewer is short."""
        self._kept = self.largest // _SHARE_OF_SHORT if self.short > small else 0
        """Bytes that are kept for short streams, if there are any that may have to wait."""
        self.reserved = 0
        """Bytes of streams that have a reservation."""
        self._reserved_long = 0
        """Those of long streams."""
        self.loose = 0
        """Bytes held by streams without a reservation."""
        self.output = 0
        """Bytes that wait because a peer does not read."""
        self.refused = 0
        """Streams that were refused, in total."""
        self._now = now
        self._call_later = call_later
        self._admitted: dict[Account, None] = {}
        self._waiting: WaitingBodies[Account] = WaitingBodies()
        self._stalls: Stalls[Account] = Stalls()
        self._cancel_timer: Callable[[], object] | None = None

    @property
    def used(self) -> int:
        """Bytes held or reserved."""
        return self.reserved + self.loose + self.output

    @property
    def waiting(self) -> int:
        """The number of streams that wait."""
        return len(self._waiting)

    def count_output(self, change: int) -> None:
        """Count bytes that wait because a peer does not read; negative: they have left."""
        self.output += change
        if change < 0 and self._waiting:
            self._admit_next()

    # Called by accounts

    def charge(self, account: "Account") -> None:
        """Count what an account holds or has reserved now."""
        size = max(account.reserved, account.held + account.kept)
        if account.charged and size > account.reserved > 0:
            # It holds what it was let in for, and the start of more.
            self._count(account, -account.charged)
            self.loose += account.charged
            account.reserved = 0
            self._admitted.pop(account, None)
        change = size - account.charged
        if not change:
            return
        account.charged = size
        self._count(account, change)
        if change > 0:
            self._make_room(account)
        elif self._waiting:
            self._admit_next()

    def admit(self, account: "Account", size: int) -> bool:
        """Reserve bytes for a stream; ``False``: it has to wait, or it is refused."""
        if size > self.largest:
            self._refuse(account)
            return False
        waiting = self._waiting
        queue = waiting.long if size > self.short else waiting.short
        if not queue and self._fits(account, size):
            self._reserve(account, size)
            return True
        account.wanted = size
        queue[account] = self._now() + self.wait_seconds
        if self._cancel_timer is None:
            self._look_later()
        account.holder.must_wait()
        return False

    def release(self, account: "Account") -> None:
        """Remove what an account held and reserved."""
        waited = self._waiting.remove(account)
        self._admitted.pop(account, None)
        self._count(account, -account.charged)
        account.charged = account.reserved = account.wanted = 0
        if self._waiting:
            self._admit_next()
        elif waited:
            self._stop_timer()

    # Inside

    def _count(self, account: "Account", change: int) -> None:
        if not account.reserved:
            self.loose += change
            return
        self.reserved += change
        if account.is_long:
            self._reserved_long += change

    def _fits(self, account: "Account", size: int) -> bool:
        reserved, long, loose = self.reserved, self._reserved_long, self.loose
        if not account.reserved:
            loose -= account.charged
        else:
            reserved -= account.charged
            if account.is_long:
                long -= account.charged
        if size > self.short:
            if long and long + size > self.largest - self._kept:
                return False
        elif self._waiting.long and reserved - long + size > self._kept:
            return False
        reserved += self.output + size
        return reserved <= self.largest and reserved + loose <= self.limit

    def _reserve(self, account: "Account", size: int) -> None:
        self._count(account, -account.charged)
        account.wanted = 0
        account.reserved = account.charged = size
        account.is_long = size > self.short
        account.admitted_at, account.admitted_with = self._now(), account.received
        self._count(account, size)
        self._admitted[account] = None

    def _admit_next(self) -> None:
        while True:
            for account in self._waiting.first():
                if self._fits(account, account.wanted):
                    break
            else:
                break
            self._waiting.remove(account)
            self._reserve(account, account.wanted)
            account.holder.admitted()
        if not self._waiting:
            self._stop_timer()

    def _make_room(self, account: "Account") -> None:
        while self.used > self.limit:
            last = self._waiting.last() or account
            self._refuse(last)
            if last is account:
                return

    def _refuse(self, account: "Account") -> None:
        self.refused += 1
        account.is_refused = True
        account.clear()
        account.holder.refused()

    def _look(self) -> None:
        """Refuse streams that have stalled while others wait, and those that waited too long."""
        self._cancel_timer = None
        for account in self._stalls.look(self._admitted):
            if not self._waiting:
                break
            self._refuse(account)
        now = self._now()
        overdue = self._waiting.overdue(now)
        if overdue:
            for account in [each for each in self._admitted if _is_slow(each, now)]:
                self._refuse(account)
        for account in overdue:
            # An earlier refusal may have made room for this one.
            if account in self._waiting:
                self._refuse(account)
        if self._waiting and self._cancel_timer is None:
            self._look_later()

    def _look_later(self) -> None:
        seconds = min(self._waiting.next_due() - self._now(), LOOK_SECONDS)
        self._cancel_timer = self._call_later(max(0.0, seconds), self._look)

    def _stop_timer(self) -> None:
        self._stalls.forget()
        if self._cancel_timer is not None:
            self._cancel_timer()
            self._cancel_timer = None


def _is_slow(account: "Account", now: float) -> bool:
    seconds = now - account.admitted_at - _GRACE_SECONDS
    received = account.received - account.admitted_with
    return account.lacks > 0 and seconds > 0 and received < seconds * _SLOWEST


class Account:
    """What one stream holds, and what it expects."""

    __slots__ = (
        "_budget",
        "admitted_at",
        "admitted_with",
        "body",
        "charged",
        "held",
        "holder",
        "is_long",
        "is_refused",
        "kept",
        "message",
        "reserved",
        "wanted",
    )

    def __init__(self, budget: Budget, holder: Holder) -> None:
        self._budget = budget
        self.holder = holder
        self.held = 0
        """Bytes of the unfinished message that have arrived."""
        self.message = 0
        """Bytes that this message will have."""
        self.kept = 0
        """Bytes of a body of which pieces are collected."""
        self.body = 0
        """Bytes that this body may have, until it is complete."""
        self.reserved = 0
        self.charged = 0
        """What the budget counts for this account. Only the budget changes it."""
        self.wanted = 0
        """What the stream waits for."""
        self.admitted_at = 0.0
        self.admitted_with = 0
        """Bytes that had arrived at that time."""
        self.is_long = False
        """Whether what it has reserved was that of a long stream."""
        self.is_refused = False

    @property
    def received(self) -> int:
        """Bytes that have arrived and that it holds."""
        return self.held + self.kept

    @property
    def lacks(self) -> int:
        """Bytes that are expected and have not arrived."""
        return max(self.message - self.held, self.body - self.kept - self.held, 0)

    def hold(self, held: int, message: int) -> None:
        """State how many bytes of the unfinished message have arrived, and its length."""
        if self.is_refused:
            return
        self.held, self.message = held, message
        self._changed()

    def taken(self, held: int, message: int) -> None:
        """State the same after a message is complete that the call has not handled yet.

        What was counted for it stays so until ``settle``: the call may keep what it says.
        """
        self.held, self.message = held, message

    def settle(self) -> None:
        """Count what is held and kept now that the messages are handled."""
        if not self.is_refused:
            self._changed()

    def keep(self, kept: int, body: int) -> None:
        """State how many bytes of a body are collected, and how many it may have.

        Args:
            kept: The bytes of the pieces that have arrived.
            body: Its length while it is incomplete; 0 when nothing more is collected.
        """
        if self.is_refused:
            return
        self.kept, self.body = kept, body
        if self.reserved and not body:
            # It may have reserved far more, if its length was not known.
            needed = max(self.held + kept, self.message)
            self.reserved = min(self.reserved, needed) or self.reserved
        self._changed()

    def lets_in(self) -> bool:
        """Return whether the stream may receive more. If not, its holder is told when."""
        if self.is_refused or self.wanted:
            return False
        expected = self.held + self.kept + self.lacks
        if expected <= self._budget.small or expected <= self.reserved:
            return True
        return self._budget.admit(self, expected)

    def clear(self) -> None:
        """State that the stream holds and expects nothing."""
        self.held = self.message = self.kept = self.body = 0
        self._budget.release(self)

    def _changed(self) -> None:
        if (self.reserved or self.wanted) and not (self.held or self.kept or self.body):
            self._budget.release(self)
        else:
            self._budget.charge(self)
