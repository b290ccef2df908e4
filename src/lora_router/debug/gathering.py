"""Merges the answers of several processes: of the workers of a router, and of its peers."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from heapq import merge
from operator import attrgetter
from typing import TypeVar

import msgspec

from lora_router.debug.arguments import Arguments, ArgumentsError
from lora_router.debug.fact_rows import FactsPart, PodFacts, RouterFacts
from lora_router.debug.merging import MergedAdapters, MergedPods
from lora_router.debug.pages import (
    AdaptersPage,
    DecisionPage,
    DecisionsPage,
    ExplainPage,
    FactsPage,
    HeldPage,
    OrderPage,
    PodsPage,
    RoutersPage,
    StepsPage,
)
from lora_router.debug.parts import AdapterPart, PodPart
from lora_router.debug.questions import (
    Answer,
    AnswerError,
    Kind,
    Question,
    encode,
    read_answer,
    read_part,
)
from lora_router.debug.rows import (
    DecisionRow,
    ExplainedDecision,
    Explanation,
    HeldRow,
    LoaderStep,
    Obeyed,
    RouterRow,
)
from lora_router.debug.slices import in_slices

Ask = Callable[[bytes], Awaitable[Sequence[tuple[str, bytes]]]]
"""Asks all processes, and returns the name and the answer of each, this one first. An empty answer
means that the process did not answer in time."""

Row = TypeVar("Row")
NO_ARGS: Mapping[str, str] = {}


class NoAnswerError(Exception):
    """No process could answer. The message says why."""


class Answers:
    """What the processes answered."""

    def __init__(self, received: Iterable[tuple[str, bytes]]) -> None:
        self.of: list[tuple[str, Answer]] = []
        """The name and the answer of each process that answered."""
        self.unreachable: list[str] = []
        self.errors: list[str] = []
        """Why processes have no answer."""
        for name, data in received:
            try:
                answer = read_answer(data) if data else None
            except AnswerError:
                answer = None
            if answer is None:
                self.unreachable.append(name)
            elif answer.error:
                self.errors.append(answer.error)
            else:
                self.of.append((name, answer))

    @property
    def at(self) -> float:
        """When the first process answered, in seconds since 1970."""
        return self.of[0][1].at if self.of else 0.0

    @property
    def more(self) -> int:
        """How many rows they left out."""
        return sum(answer.more for _, answer in self.of)

    async def parts(self, row: type[Row]) -> "list[tuple[str, list[Row]]]":
        """Return the name of the process and the rows of each part that can be read."""
        every = [(name, part) for name, answer in self.of for part in answer.parts]
        found = []
        async for some in in_slices(every, 2):
            for name, part in some:
                try:
                    found.append((name, read_part(part, row)))
                except AnswerError:
                    if name not in self.unreachable:
                        self.unreachable.append(name)
        return found

    async def each_part(self, row: type[Row], take: Callable[[list[Row]], None]) -> None:
        """Hand over the rows of each part that can be read, one part in a turn of the loop."""
        async for some in in_slices(await self.parts(row), 1):
            for _, part in some:
                take(part)


class Gathering:
    """Asks all processes, and merges what they answer into the debug pages."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def routers(self, args: Mapping[str, str] = NO_ARGS) -> RoutersPage:
        """Return the page of the processes.

        Args:
            args: There are none.

        Raises:
            ArgumentsError: There is a parameter.
            NoAnswerError: No process answered.
        """
        answers = await self._answers("routers", args)
        rows = []
        for name, part in await answers.parts(RouterRow):
            for row in part:
                row.name = name
                rows.append(row)
        rows.sort(key=attrgetter("name"))
        return RoutersPage(at=answers.at, unreachable=answers.unreachable, routers=rows)

    async def pods(self, args: Mapping[str, str] = NO_ARGS) -> PodsPage:
        """Return the page of the pods.

        Args:
            args: There are none.

        Raises:
            ArgumentsError: There is a parameter.
            NoAnswerError: No process answered.
        """
        answers = await self._answers("pods", args)
        merged = MergedPods()
        await answers.each_part(PodPart, merged.add)
        return PodsPage(at=answers.at, unreachable=answers.unreachable, pods=await merged.rows())

    async def adapters(self, args: Mapping[str, str] = NO_ARGS) -> AdaptersPage:
        """Return the page of the adapters.

        Args:
            args: ``limit``.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
            NoAnswerError: No process answered.
        """
        limit = Arguments("adapters", args).limit
        answers = await self._answers("adapters", args)
        merged = MergedAdapters()
        told: Counter[str] = Counter()
        async for some in in_slices(await answers.parts(AdapterPart), 1):
            for name, part in some:
                merged.add(part)
                told[name] += len(part)
        rows, left_out = await merged.rows(limit)
        # All know the same adapters, and each tells of others: so the one that knows most is right.
        known = max((told[name] + answer.more for name, answer in answers.of), default=0)
        more = max(left_out, known - len(rows))
        return AdaptersPage(
            at=answers.at, unreachable=answers.unreachable, adapters=rows, more=more
        )

    async def steps(self, args: Mapping[str, str] = NO_ARGS) -> StepsPage:
        """Return the page of loads and unloads that are to be done.

        Args:
            args: ``limit``.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
            NoAnswerError: No process answered.
        """
        limit = Arguments("steps", args).limit
        answers = await self._answers("steps", args)
        steps = [row for _, part in await answers.parts(LoaderStep) for row in part]
        more = answers.more + max(0, len(steps) - limit)
        return StepsPage(
            at=answers.at, unreachable=answers.unreachable, steps=steps[:limit], more=more
        )

    async def order(self, args: Mapping[str, str]) -> OrderPage:
        """Give an order to the router that loads adapters, and return what became of it.

        Args:
            args: ``action``, and what it needs.

        Raises:
            ArgumentsError: A parameter is not known, or the order cannot be obeyed.
            NoAnswerError: No process loads adapters now.
        """
        Arguments("order", args)
        answers = Answers(await self._ask(encode(Question("order", args))))
        for name, part in await answers.parts(Obeyed):
            for row in part:
                return OrderPage(at=answers.at, router=name, message=row.message)
        if answers.errors:
            raise ArgumentsError(answers.errors[0])
        away = ", ".join(answers.unreachable)
        unreachable = f" These did not answer: {away}." if away else ""
        raise NoAnswerError(
            "no router loads adapters now. One does if adapters_file, model_adapters or "
            f"adapter_sources is set, a few seconds after its start.{unreachable}"
        )

    async def facts(self, args: Mapping[str, str] = NO_ARGS) -> FactsPage:
        """Return the page of what the doctor needs to know besides.

        Args:
            args: There are none.

        Raises:
            ArgumentsError: There is a parameter.
            NoAnswerError: No process answered.
        """
        answers = await self._answers("facts", args)
        routers: list[RouterFacts] = []
        pods: dict[str, PodFacts] = {}
        async for some in in_slices(await answers.parts(FactsPart), 1):
            for name, parts in some:
                for part in parts:
                    if part.router is not None:
                        part.router.name = name
                        routers.append(part.router)
                    for pod in part.pods:
                        known = pods.setdefault(pod.name, pod)
                        # What one process does not know, another one does.
                        known.strangers = min(known.strangers, pod.strangers)
                        known.used = max(known.used, pod.used)
        return FactsPage(
            at=answers.at,
            unreachable=answers.unreachable,
            routers=routers,
            pods=sorted(pods.values(), key=attrgetter("name")),
        )

    async def held(self, args: Mapping[str, str] = NO_ARGS) -> HeldPage:
        """Return the page of the requests that wait.

        Args:
            args: ``limit``.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
            NoAnswerError: No process answered.
        """
        limit = Arguments("held", args).limit
        answers = await self._answers("held", args)
        rows = _named(await answers.parts(HeldRow))
        oldest = list(merge(*rows, key=lambda row: -row.seconds))
        more = answers.more + max(0, len(oldest) - limit)
        return HeldPage(
            at=answers.at, unreachable=answers.unreachable, held=oldest[:limit], more=more
        )

    async def decisions(self, args: Mapping[str, str] = NO_ARGS) -> DecisionsPage:
        """Return the page of decisions.

        Args:
            args: The parameters of the page, such as ``limit`` and ``model``.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
            NoAnswerError: No process answered.
        """
        limit = Arguments("decisions", args).limit
        answers = await self._answers("decisions", args)
        rows = _named(await answers.parts(DecisionRow))
        newest = list(merge(*rows, key=lambda row: -row.at))
        return DecisionsPage(
            at=answers.at, unreachable=answers.unreachable, decisions=newest[:limit]
        )

    async def decision(self, args: Mapping[str, str]) -> DecisionPage:
        """Return the page of one decision: the last one about the request with an ID.

        Args:
            args: ``id``, and ``router`` where several routers decided about requests with that ID.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
            NoAnswerError: No process knows the request. The message says why that may be.
        """
        asked = Arguments("decision", args)
        request_id, router = asked.text("id"), asked.text("router")
        if request_id is None:
            raise ArgumentsError("id: the ID of a request is missing")
        answers = await self._answers("decision", args)
        rows = [
            row
            for part in _named(await answers.parts(ExplainedDecision))
            for row in part
            if router in (None, row.router)
        ]
        if not rows:
            raise NoAnswerError(_unknown(request_id, answers.unreachable))
        newest = max(rows, key=lambda row: row.at)
        return msgspec.convert(newest, DecisionPage, from_attributes=True)

    async def explain(self, args: Mapping[str, str]) -> ExplainPage:
        """Return the page of what would become of a request now.

        Args:
            args: ``model``, ``strategy``, ``filter`` and ``size``.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
            NoAnswerError: No process answered.
        """
        answers = await self._answers("explain", args)
        rows = [row for part in _named(await answers.parts(Explanation)) for row in part]
        if not rows:
            raise NoAnswerError("no router answers")
        page = msgspec.convert(rows[0], ExplainPage, from_attributes=True)
        page.at, page.unreachable = answers.at, answers.unreachable
        page.others = [row for row in rows[1:] if (row.answer, row.pod) != (page.answer, page.pod)]
        return page

    async def _answers(self, kind: Kind, args: Mapping[str, str] = NO_ARGS) -> Answers:
        Arguments(kind, args)  # What is wrong with them is said before anybody is asked.
        answers = Answers(await self._ask(encode(Question(kind, args))))
        if not answers.of:
            raise NoAnswerError(answers.errors[0] if answers.errors else "no router answers")
        return answers


def _unknown(request_id: str, unreachable: Sequence[str]) -> str:
    """Return why a request may be unknown."""
    away = f" Routers that do not answer: {', '.join(unreachable)}." if unreachable else ""
    return (
        f"request {request_id:.128} is not known. It may not have been decided about, or not by "
        "these routers; it may be older than the decisions that are kept (setting decisions); or "
        f"it was an ordinary one and was not kept (setting decisions_share).{away}"
    )


def _named(parts: "Iterable[tuple[str, list[Row]]]") -> "list[list[Row]]":
    """Return the rows of each process, with its name in them."""
    rows: dict[str, list[Row]] = {}
    for name, part in parts:
        for row in part:
            row.router = name  # type: ignore[attr-defined]
        rows.setdefault(name, []).extend(part)
    return list(rows.values())
