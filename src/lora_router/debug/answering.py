"""Answers questions for this process: from the fleet, the waiting room and the log of decisions.

Everything is read in the event loop that serves requests, in slices.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from time import monotonic, time

from msgspec import Struct

from lora_router import __version__
from lora_router.debug.arguments import Arguments, ArgumentsError
from lora_router.debug.decision_rows import Wanted, find, rows_of
from lora_router.debug.explained_rows import (
    bad_name,
    explanation,
    held_decision,
    past_decision,
    too_large,
)
from lora_router.debug.fact_rows import RouterFacts, fact_parts
from lora_router.debug.fleet_rows import AdapterSurvey, add_traffic, pod_parts
from lora_router.debug.held_rows import find_held, held_rows
from lora_router.debug.loading import Loading
from lora_router.debug.parts import AdapterPart
from lora_router.debug.questions import Answer, AnswerError, Question, encode, read_question
from lora_router.debug.rows import RouterRow
from lora_router.routing.director import Director
from lora_router.routing.model_name_rule import why_invalid
from lora_router.routing.outcome import RouteQuery
from lora_router.telemetry.decisions import DecisionLog
from lora_router.telemetry.traffic import OTHER, Traffic

_ROWS_AT_ONCE = 64
_PARTS_AT_ONCE = 4
NOT_RECORDED = "decisions are not recorded: the setting decisions is 0"


class Process:
    """What a process knows of itself beside its fleet. Each attribute is read when it is asked."""

    def __init__(
        self,
        readiness: Callable[[], tuple[bool, str]],
        *,
        lag: Callable[[], float] = lambda: 0.0,
        peers: Callable[[], Iterable[str]] = lambda: (),
        facts: Callable[[], RouterFacts] = RouterFacts,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        """Create it.

        Args:
            readiness: Returns whether the process is ready, and the reason.
            lag: Returns the lag of its event loop, in seconds.
            peers: Returns the names of the peers that it hears.
            facts: Returns the settings that the doctor looks at.
            clock: Returns seconds, monotonic: the clock of the fleet.
            wall: Returns seconds since 1970.
        """
        self.readiness = readiness
        self.lag = lag
        self.peers = peers
        self.facts = facts
        self.now = clock
        self.wall = wall
        self.started_at = clock()


class Debug:
    """What this process answers."""

    def __init__(
        self,
        director: Director,
        decisions: DecisionLog | None,
        process: Process,
        traffic: Traffic | None = None,
    ) -> None:
        """Create it.

        Args:
            director: The fleet, and the requests that wait.
            decisions: The log of decisions; ``None``: they are not recorded.
            process: What else there is to know of this process.
            traffic: What became of requests, by adapter; ``None``: it is not counted.
        """
        self._director = director
        self._decisions = decisions
        self._process = process
        self._traffic = traffic
        self.loading: Loading | None = None
        """Answers about the loader; ``None``: this process never loads adapters."""
        self._kinds: Mapping[str, Callable[[Arguments], Awaitable[Answer]]] = {
            "routers": self._routers,
            "pods": self._pods,
            "adapters": self._adapters,
            "held": self._held,
            "decisions": self._list_decisions,
            "decision": self._decision,
            "explain": self._explain,
            "facts": self._facts,
            "steps": self._steps,
            "order": self._order,
        }

    async def answer(self, question: bytes) -> bytes:
        """Return the answer to a question, encoded. It never raises for what the question says."""
        try:
            return encode(await self.answer_to(read_question(question)))
        except (AnswerError, ArgumentsError) as error:
            return encode(Answer(at=self._process.wall(), error=str(error)))

    async def answer_to(self, question: Question) -> Answer:
        """Return the answer to a question.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
        """
        return await self._kinds[question.kind](Arguments.of(question))

    async def _routers(self, _arguments: Arguments) -> Answer:
        process, director = self._process, self._director
        ready, reason = process.readiness()
        row = RouterRow(
            version=__version__,
            algorithm=director.default_algorithm,
            ready=ready,
            reason=reason,
            pods=len(director.fleet),
            held=director.held,
            in_flight=director.fleet.ledger.total,
            decisions=0 if self._decisions is None else self._decisions.count,
            loop_lag_seconds=process.lag(),
            uptime_seconds=process.now() - process.started_at,
            peers=sorted(process.peers()),
        )
        return await self._answer([[row]])

    async def _pods(self, _arguments: Arguments) -> Answer:
        director = self._director
        return await self._answer(
            await pod_parts(director.fleet, director.reception.room, self._process.now())
        )

    async def _facts(self, _arguments: Arguments) -> Answer:
        process, fleet = self._process, self._director.fleet
        parts = await fact_parts(fleet, process.facts(), process.now(), process.wall())
        return await self._answer(parts)

    async def _adapters(self, arguments: Arguments) -> Answer:
        survey = AdapterSurvey(self._director.fleet, self._process.now())
        held: Counter[str] = Counter()
        for queue in tuple(self._director.reception.room.queues()):
            first = queue.first
            if first is not None and first.request.adapter is not None:
                held[first.request.adapter] += len(queue.requests)
        for name, count in held.items():
            row = survey.of(name)
            if row is not None:
                row.held = count
        if self._traffic is not None:
            for name, traffic in self._traffic.adapters.items():
                row = None if name == OTHER else survey.of(name)
                if row is not None:
                    add_traffic(row, traffic)
        if self.loading is not None:
            await self.loading.add_declared(survey.of)
        rows = await survey.look(arguments.limit)
        return await self._answer(_sliced(sorted(rows, key=busyness)), survey.more)

    async def _steps(self, arguments: Arguments) -> Answer:
        if self.loading is None:
            return Answer(at=self._process.wall())
        return await self.loading.steps(arguments)

    async def _order(self, arguments: Arguments) -> Answer:
        if self.loading is None:
            return Answer(at=self._process.wall())
        return self.loading.obey(arguments)

    async def _held(self, arguments: Arguments) -> Answer:
        director = self._director
        rows = await held_rows(director.reception.room, arguments.limit, self._process.now())
        return await self._answer(rows, max(0, director.held - sum(map(len, rows))))

    async def _list_decisions(self, arguments: Arguments) -> Answer:
        log = self._decisions
        if log is None:
            return Answer(at=self._process.wall(), error=NOT_RECORDED)
        found = await find(log, arguments.wanted)
        return await self._answer(await rows_of(found, log))

    async def _decision(self, arguments: Arguments) -> Answer:
        request_id = arguments.text("id") or ""
        held = await find_held(self._director.reception.room, request_id)
        if held is not None:
            now = self._process.now()
            row = held_decision(self._director, held, self._decisions, now)
            return await self._answer([[row]])
        log = self._decisions
        if log is None:
            return Answer(at=self._process.wall(), error=NOT_RECORDED)
        found = await find(log, Wanted(1, request_id=request_id))
        return await self._answer([[past_decision(self._director, each, log)] for each in found])

    async def _explain(self, arguments: Arguments) -> Answer:
        query = RouteQuery(
            arguments.text("model") or "",
            size=arguments.size,
            strategy=arguments.text("strategy"),
            pod_filter=arguments.text("filter"),
        )
        limit = self._process.facts().max_body_bytes
        if 0 < limit < query.size:
            return await self._answer([[too_large(query, limit)]])
        if wrong := why_invalid(query.model):
            return await self._answer([[bad_name(query, wrong)]])
        return await self._answer([[await explanation(self._director, query)]])

    async def _answer(self, parts: Sequence[Collection[Struct]], more: int = 0) -> Answer:
        encoded: list[bytes] = []
        left = deque(parts)
        parts = ()
        while left:
            # What is encoded is freed here, and not all at once in the end.
            encoded.append(encode(left.popleft()))
            if len(encoded) % _PARTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return Answer(at=self._process.wall(), parts=encoded, more=more)


def busyness(row: AdapterPart) -> tuple[int, int, int, int, int, str]:
    """Return a key by which the busiest adapters are first, and then those that fail to load."""
    failing = -len(row.failing)
    return (
        -row.held - row.in_flight,
        -row.held,
        -row.requests,
        failing,
        -len(row.loaded),
        row.name,
    )


def _sliced(rows: Sequence[AdapterPart]) -> list[Sequence[AdapterPart]]:
    return [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
