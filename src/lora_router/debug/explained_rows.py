"""Explanations as rows: what would be decided now, and what was decided."""

from collections import Counter
from collections.abc import Iterable, Sequence

from lora_router.counted import counted
from lora_router.debug.decision_rows import row_of
from lora_router.debug.fleet_rows import PODS_AT_ONCE
from lora_router.debug.rows import CandidateRow, ClosingSlot, ExplainedDecision, Explanation
from lora_router.debug.slices import in_slices
from lora_router.debug.telling import tell_now, tell_past
from lora_router.routing.algorithm import Cost, InferenceRequest, Sight
from lora_router.routing.director import Director
from lora_router.routing.explaining import Explained
from lora_router.routing.looks import Seen, sights_of
from lora_router.routing.outcome import RouteQuery
from lora_router.routing.refusal import Refusal
from lora_router.routing.waiting_queue import Held
from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.visible_text import visible

MAX_EXCLUDED = 64
"""Excluded pods that an explanation names. All of them are counted by cause."""


_NO_PODS = {
    Refusal.NO_MODEL.value,
    Refusal.UNKNOWN_ALGORITHM.value,
    Refusal.BAD_SELECTOR.value,
}
"""Reasons of refusals with which no pod has to do."""


async def explanation(director: Director, query: RouteQuery) -> Explanation:
    """Return what the director would decide about a request now.

    The decision and its candidates are of one moment. The excluded pods are looked at afterwards,
    in slices.
    """
    found = director.explainer.explain(query)
    row = Explanation(
        asked=query.model,
        model=found.model,
        adapter=found.adapter,
        base_model=_base_model(found),
        algorithm=found.algorithm,
        answer=found.answer,
        pod="" if found.pod is None else found.pod.pod.name,
        reason=found.reason,
        detail=found.detail,
        wanted=None if found.wanted is None else found.wanted.pod.name,
        held=found.held,
        candidates=[*_candidates(found.sights, found.costs)],
    )
    if found.closed is not None:
        row.closing = ClosingSlot(pod=found.closed[0].pod.name, adapter=found.closed[1])
    causes: Counter[str] = Counter()
    causes.update(each.excluded for each in row.candidates if each.excluded)
    if found.candidates is not None:
        row.more = max(0, len(found.candidates) - len(found.sights))
    looked_at = () if found.reason in _NO_PODS else tuple(director.fleet)
    async for states in in_slices(looked_at, 2 * PODS_AT_ONCE):
        for state in states:
            why = director.explainer.why_not(found, state)
            if not why:
                continue
            if sum(causes.values()) < MAX_EXCLUDED:
                beliefs = state.beliefs
                row.candidates.append(
                    CandidateRow(
                        pod=state.pod.name,
                        requests=state.in_flight + beliefs.foreign_requests,
                        free_slots=beliefs.free_slots,
                        excluded=why,
                    )
                )
            else:
                row.more += 1
            causes[why] += 1
    row.excluded = dict(causes)
    row.text = tell_now(row)
    return row


def too_large(query: RouteQuery, limit: int) -> Explanation:
    """Return that a request is refused before anything is decided about it.

    Args:
        query: The request.
        limit: The bytes that a body may have.
    """
    most = counted(limit, "byte")
    return _refused(
        query, "body-too-large", f"a body may have at most {most} (setting max_body_bytes)"
    )


def bad_name(query: RouteQuery, wrong: str) -> Explanation:
    """Return that a request is refused, because its model has no valid name.

    Args:
        query: The request.
        wrong: What is wrong with the name.
    """
    return _refused(query, "bad-model-name", f"the name of the model {wrong}")


def _refused(query: RouteQuery, reason: str, detail: str) -> Explanation:
    row = Explanation(asked=query.model, answer="refuse", reason=reason, detail=detail)
    row.text = tell_now(row)
    return row


def _base_model(found: Explained) -> str:
    if not found.adapter:
        return found.model if found.serving is not None and found.serving.pods else ""
    pods = () if found.serving is None else found.serving.pods
    return next((base for pod in pods if (base := pod.adapters.get(found.adapter))), "")


def past_decision(director: Director, decision: Decision, log: DecisionLog) -> ExplainedDecision:
    """Return a decision with what it saw of the candidates, and why it was made."""
    row = row_of(decision, log, ExplainedDecision)
    request = InferenceRequest(
        decision.model, decision.adapter or None, size=decision.size, path=decision.path
    )
    algorithm = decision.algorithm
    noted = decision.noted or director.recollection.recall(
        algorithm, decision.notes, decision.pod, decision.place
    )
    if noted:
        row.candidates = [*map(_noted, noted)]
    else:
        seen = sights_of(decision.looks) or decision.seen
        row.candidates = _costed(director, algorithm, request, seen)
    seen = sights_of(decision.held_looks) or decision.held_seen
    row.held_candidates = _costed(director, algorithm, request, seen)
    row.text = tell_past(row, log.slow_seconds)
    return row


def held_decision(
    director: Director, held: Held, log: DecisionLog | None, now: float
) -> ExplainedDecision:
    """Return what there is to say of a request that is still held."""
    request, question, queue = held.request, held.question, held.queue
    row = ExplainedDecision(
        at=0.0 if log is None else log.wall(held.since),
        request_id=request.request_id,
        path=request.path,
        model=question.model,
        adapter=request.adapter or "",
        size=request.size,
        stream=request.stream,
        algorithm=question.algorithm,
        held_seconds=max(0.0, now - held.since),
        held_for=held.reason if queue is None else queue.hold.reason,
        abnormal=True,
    )
    row.held_candidates = _costed(director, question.algorithm, request, sights_of(held.looks))
    lines: list[str] = []
    if queue is not None and queue.closing is not None:
        pod, adapter = queue.closing
        lines.append(f"The slot of {adapter} on {pod.pod.name} is being emptied for it.")
    if queue is not None and queue.hold.wanted is not None:
        lines.append(f"It waits for a free slot of {queue.hold.wanted.pod.name}.")
    row.text = "\n".join((tell_past(row, 0.0), *map(visible, lines)))
    return row


def _costed(
    director: Director, algorithm: str, request: InferenceRequest, sights: Sequence[Sight]
) -> list[CandidateRow]:
    return [*_candidates(sights, director.explainer.costs(algorithm, request, sights))]


def _noted(seen: Seen) -> CandidateRow:
    terms = dict(seen.terms)
    return CandidateRow(
        pod=seen.pod,
        requests=seen.requests,
        place=seen.place,
        terms=terms,
        cost=sum(terms.values()) if terms and not seen.excluded else None,
        excluded=seen.excluded,
    )


def _candidates(sights: Sequence[Sight], costs: Sequence[Cost]) -> Iterable[CandidateRow]:
    for sight, cost in zip(sights, costs, strict=True):
        has_cost = bool(cost.terms) and not cost.excluded
        yield CandidateRow(
            pod=sight.pod,
            requests=sight.requests,
            free_slots=sight.free_slots,
            place=sight.place,
            terms=dict(cost.terms),
            cost=sum(cost.terms.values()) if has_cost else None,
            excluded=cost.excluded,
        )
