"""The decisions of one process, as rows: found in the log in slices, because it may be long."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lora_router.debug.rows import DecisionRow
from lora_router.debug.slices import in_slices
from lora_router.telemetry.decisions import Decision, DecisionLog

AT_ONCE = 256
"""Decisions that are looked at in one turn of the loop."""
ROWS_AT_ONCE = 32

_Row = TypeVar("_Row", bound=DecisionRow)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions are wanted. ``None``: whatever they are in this respect."""

    limit: int
    since: float | None = None
    """Only requests that arrived then or later, in seconds since 1970."""
    model: str | None = None
    """The model or the adapter."""
    pod: str | None = None
    """The pod that was picked, or that served the request in the end."""
    outcome: str | None = None
    abnormal: bool | None = None
    slow: bool | None = None
    request_id: str | None = None

    def fits(self, decision: Decision, log: DecisionLog) -> bool:
        """Return whether a decision is wanted."""
        return (
            (self.request_id is None or decision.request_id == self.request_id)
            and (self.since is None or log.wall(decision.arrived_at) >= self.since)
            and (self.model is None or self.model in (decision.model, decision.adapter))
            and (self.pod is None or self.pod in (decision.pod, decision.retried_on))
            and (self.outcome is None or decision.outcome == self.outcome)
            and (self.abnormal is None or log.is_abnormal(decision) is self.abnormal)
            and (self.slow is None or log.is_slow(decision) is self.slow)
        )


async def find(log: DecisionLog, wanted: Wanted) -> list[Decision]:
    """Return the wanted decisions, the newest first."""
    found: list[Decision] = []
    # A copy, because requests are decided while it is searched. It takes microseconds for
    # thousands.
    async for some in in_slices(tuple(log), AT_ONCE):
        for decision in some:
            if wanted.fits(decision, log):
                found.append(decision)
                if len(found) >= wanted.limit:
                    return found
    return found


async def rows_of(decisions: Sequence[Decision], log: DecisionLog) -> list[Collection[DecisionRow]]:
    """Return rows of decisions, in slices."""
    return [
        [row_of(each, log, DecisionRow) for each in some]
        async for some in in_slices(decisions, ROWS_AT_ONCE)
    ]


def row_of(decision: Decision, log: DecisionLog, kind: type[_Row]) -> _Row:
    """Return the row of a decision."""
    return kind(
        number=decision.number,
        at=log.wall(decision.arrived_at),
        request_id=decision.request_id,
        path=decision.path,
        model=decision.model,
        adapter=decision.adapter,
        base_model=decision.base_model,
        size=decision.size,
        stream=decision.stream,
        algorithm=decision.algorithm,
        outcome=decision.outcome,
        reason=decision.reason,
        pod=decision.pod,
        endpoint=decision.endpoint,
        held_seconds=decision.held_seconds,
        held_for=decision.held_for,
        body_seconds=decision.body_seconds,
        decision_seconds=decision.decision_seconds,
        pod_seconds=decision.pod_seconds,
        unanswered=decision.unanswered,
        first_byte_seconds=decision.first_byte_seconds,
        seconds=decision.seconds,
        status=decision.status,
        details=decision.details,
        retried_on=decision.retried_on,
        place=decision.place,
        spilled=decision.spilled,
        replicated=decision.replicated,
        prompt_tokens=decision.prompt_tokens,
        completion_tokens=decision.completion_tokens,
        cached_tokens=decision.cached_tokens,
        estimated_prompt_tokens=_whole(decision.estimated_prompt_tokens),
        expected_cached_tokens=_whole(decision.expected_cached_tokens),
        abnormal=log.is_abnormal(decision),
        slow=log.is_slow(decision),
    )


def _whole(tokens: float | None) -> int | None:
    return None if tokens is None else round(tokens)
