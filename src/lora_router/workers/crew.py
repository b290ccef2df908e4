"""All workers of a router: started, watched, replaced when they end or hang, and drained."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from lora_router.supervision import Supervisor
from lora_router.workers import messages
from lora_router.workers.descriptors import CONNECTION
from lora_router.workers.member import Member, Process
from lora_router.workers.merged_metrics import Ended
from lora_router.workers.messages import (
    Answered,
    Answers,
    Asked,
    Failed,
    Family,
    FromWorker,
    Heard,
    LookAgain,
    Metrics,
    ReadSoon,
    Status,
    Wanted,
)
from lora_router.workers.metric_questions import MetricQuestions
from lora_router.workers.placement import in_order, too_many
from lora_router.workers.questions import Questions

log = logging.getLogger("lora_router.workers")

TICK_SECONDS = 0.25
HUNG_SECONDS = 20.0
"""A worker whose event loop has not run for so long is replaced. No load causes this."""
START_SECONDS = 60.0
"""A worker that has not reported for so long since its start is replaced."""
_SHED_SECONDS = 2.0
"""The shortest time between two connections that are moved to another worker."""

Start = Callable[[int], Awaitable[Process]]
"""Starts the worker with a number."""


class WorkerEndedError(Exception):
    """A worker ended although it should run. The message says how."""


class WorkerStartError(OSError):
    """A worker cannot start. The message is the worker's."""


class Crew:
    """The workers."""

    def __init__(
        self,
        count: int,
        start: Start,
        supervisor: Supervisor,
        *,
        relays: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a crew without workers.

        Args:
            count: The number of workers.
            start: Starts a worker's process.
            supervisor: Runs the tasks.
            relays: Whether workers pass streams of other hosts on to each other.
            clock: Returns seconds, monotonic.
        """
        self.count = count
        self.members: dict[int, Member] = {}
        """The workers that run, by number."""
        self.restarts = 0
        self.on_started: list[Callable[[Member], None]] = []
        """Called with each worker that was started, before it gets anything else."""
        self.on_status: Callable[[], None] = lambda: None
        """Called after each report of a worker."""
        self.on_heard: Callable[[Member, Heard], None] = lambda _member, _heard: None
        """Called with what a worker heard of pods from a peer on another host."""
        self.on_doubt: Callable[[str], None] = lambda _pod: None
        """Called with the name of a pod whose list of models should be read soon."""
        self.on_look: Callable[[], bool] = lambda: False
        """Starts to read all lists of models again, unless they are recent; returns whether they
        are being read."""
        self.on_asked: Callable[[Member, Wanted | Asked], None] = lambda _member, _asked: None
        """Called with the adapters for which requests wait in a worker, when they are news."""
        self._start = start
        self._supervisor = supervisor
        self._relays = relays
        self._clock = clock
        self._ticked_at = clock()
        self._shed_at = clock()
        self._stopping = False
        self._warm = False
        self._changed = asyncio.Event()
        self._error: str | None = None
        self._were_all_ready = False
        self._ended = Ended()
        self._metric_questions = MetricQuestions()
        self._questions = Questions()

    # Life

    def start(self) -> None:
        """Start all workers, and replace those that end."""
        for number in range(1, self.count + 1):
            self._supervisor.keep("worker", partial(self._run, number), about=f"worker {number}")
        self._supervisor.keep("worker-watch", self._watch)

    async def started(self) -> None:
        """Wait until all workers have started.

        Raises:
            WorkerStartError: One of them cannot.
        """
        await self._until(
            lambda: sum(each.status is not None for each in self._all()) >= self.count
        )

    async def warm(self) -> None:
        """Let workers become ready, now that the pods were read; wait until all are."""
        self._warm = True
        for member in self._all():
            if member.status is not None:
                self._send_warm(member)
        await self._until(lambda: self.ready >= self.count, or_error=False)

    def drain(self) -> None:
        """Let all workers drain and end. None is started any more."""
        self._stopping = True
        self.broadcast(messages.encode(messages.Drain()))

    def hurry(self) -> None:
        """End the drain of all workers at once."""
        self.broadcast(messages.encode(messages.Hurry()))

    async def ended(self, seconds: float) -> None:
        """Wait until all workers have ended, and kill those that do not."""
        self._stopping = True
        try:
            async with asyncio.timeout(seconds):
                while self.members:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.error(
                "%d workers did not end within %g s: killing them", len(self.members), seconds
            )
            self.kill()

    def kill(self) -> None:
        """Kill all workers that still run."""
        self._stopping = True
        for member in self._all():
            member.process.kill()

    # What is sent to all

    def broadcast(self, message: bytes, *, skippable: bool = False) -> None:
        """Send a message to all workers."""
        for member in self._all():
            member.process.send(message, skippable=skippable)

    def looked(self) -> None:
        """Tell the workers that asked that the lists of models have been read."""
        message = messages.encode(messages.Looked())
        for member in self._all():
            if member.looks:
                member.looks = False
                member.process.send(message)

    # Connections

    @property
    def takes_connections(self) -> bool:
        """Whether a worker could get a connection now."""
        return any(member.share.can_take for member in self._all())

    def place(self, accepted: socket.socket) -> bool:
        """Hand a connection to a worker; return whether one took it."""
        for share in in_order(member.share for member in self._all()):
            if self.members[share.number].process.hand(CONNECTION, accepted):
                share.placed += 1
                return True
        return False

    # What is known of them

    def problem(self) -> str | None:
        """Return why no worker serves, or not all yet, or ``None``."""
        ready = self.ready
        if ready >= self.count:
            self._were_all_ready = True
        if self._were_all_ready and ready:
            return None
        return self.not_ready() or "no worker is ready"

    def not_ready(self) -> str:
        """Return which workers are not ready, as one line; empty if all are."""
        found = []
        for number in range(1, self.count + 1):
            member = self.members.get(number)
            if member is None:
                found.append(f"worker {number} is not running")
            elif not (member.share.ready and member.share.responsive):
                found.append(f"worker {number} is not ready: {member.reason}")
        return "; ".join(found)

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        return {
            "workers": {str(each.number): each.details() for each in self._all()},
            "worker_restarts": self.restarts,
        }

    @property
    def ready(self) -> int:
        """The number of workers that are ready."""
        return sum(each.share.ready and each.share.responsive for each in self._all())

    async def metrics(self) -> list[Sequence[Family]]:
        """Return the metrics of all workers, and the counters of those that have ended.

        For a worker that does not answer in time, its last answer.
        """
        await self._metric_questions.ask(tuple(self.members), self.broadcast)
        return [self._ended.families, *(member.families for member in self._all())]

    async def ask(self, question: bytes) -> Answers:
        """Return what all workers, and the routers that they know, answer to a question."""
        for member in self._all():
            if member.status is not None and member.share.responsive:
                return await self._questions.ask(member, question)
        return ()

    # One worker

    async def _run(self, number: int) -> None:
        """Run a worker until it ends."""
        if self._stopping:
            await asyncio.Event().wait()
        self._error = None
        process = await self._start(number)
        member = Member(number, process)
        process.on_message(partial(self._receive, member))
        try:
            self.members[number] = member
            for listener in self.on_started:
                listener(member)
            if self._stopping:  # Since a moment ago.
                process.send(messages.encode(messages.Drain()))
            status = await process.ended()
        finally:
            process.kill()
            process.close()
            self.members.pop(number, None)
            self._ended.add(member.families)
            self._metric_questions.ended(number)
            self._changed.set()
        if self._stopping:
            await asyncio.Event().wait()
        self.restarts += 1
        how = _how_it_ended(status)
        log.error("worker %d (pid %d) %s; its connections are closed", number, process.pid, how)
        raise WorkerEndedError(how)

    def _receive(self, member: Member, data: bytes) -> None:
        message: FromWorker = messages.from_worker(data)
        match message:
            case Status():
                is_first = member.status is None
                member.report(message)
                if is_first:
                    self._join(member)
                self.on_status()
                self._changed.set()
            case Heard():
                self.on_heard(member, message)
            case Metrics(number, families, is_last):
                member.take_in(number, families, is_last=is_last)
                if is_last:
                    self._metric_questions.answered(number, member.number)
            case Answered(number, answers):
                self._questions.answered(number, answers)
            case ReadSoon(pod):
                self.on_doubt(pod)
            case LookAgain():
                member.looks = True
                if not self.on_look():
                    self.looked()
            case Wanted() | Asked():
                self.on_asked(member, message)
            case Failed(error):
                self._error = error
                self._changed.set()

    def _join(self, member: Member) -> None:
        """Link a worker that has started to the others, and let it become ready."""
        self._link(self._clock())
        if self._warm:
            self._send_warm(member)

    def _link(self, now: float) -> None:
        for one in self._all():
            for other in self._all():
                if one.number < other.number:
                    one.link_to(other, now, relays=self._relays)

    def _send_warm(self, member: Member) -> None:
        others = sum(each.status is not None for each in self._all()) - 1
        member.process.send(messages.encode(messages.Warm(others)))

    # All workers

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick()

    def tick(self) -> None:
        """Look for workers that hang, that lack a link, or that have too many connections."""
        now = self._clock()
        # A parent that was stopped for a minute knows nothing of the workers of that minute.
        passed = min(now - self._ticked_at, 2 * TICK_SECONDS)
        self._ticked_at = now
        for member in self._all():
            member.wait(passed)
            limit = START_SECONDS if member.status is None else HUNG_SECONDS
            if member.silence > limit or not member.process.reads:
                log.error(
                    "worker %d (pid %d) hangs: no report for %.0f s; it is replaced",
                    member.number,
                    member.process.pid,
                    member.silence,
                )
                member.process.kill()
        if self._stopping:
            return
        self._link(now)
        if now - self._shed_at >= _SHED_SECONDS:
            share = too_many(member.share for member in self._all())
            if share is not None:
                self._shed_at = now
                self.members[share.number].process.send(messages.encode(messages.Shed()))

    async def _until(self, condition: Callable[[], bool], *, or_error: bool = True) -> None:
        while not condition():
            if or_error and self._error is not None:
                raise WorkerStartError(self._error)
            self._changed.clear()
            await self._changed.wait()

    def _all(self) -> Iterable[Member]:
        return tuple(self.members[number] for number in sorted(self.members))


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
