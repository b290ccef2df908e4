"""The record of an exchange's decision: what is written into it, and when."""

from lora_router.extproc.context import SessionContext
from lora_router.fleet.answer import Answer
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.telemetry.decisions import MAX_NAME, Decision, DecisionLog


class Recording:
    """The part of an exchange that keeps its record. Without a log of decisions there is none."""

    __slots__ = ("_decision", "context")

    def __init__(self, context: SessionContext) -> None:
        self.context = context
        self._decision: Decision | None = None
        """The record of the request, from its headers to its end."""

    @property
    def _decisions(self) -> DecisionLog:
        """The log that made the record."""
        decisions = self.context.decisions
        assert decisions is not None  # noqa: S101 -- there is a record
        return decisions

    def _note_question(self, decision: Decision, query: RouteQuery) -> None:
        """Record what the request asks for, once it is known."""
        if not decision.asked_at:
            decision.asked_at = self._decisions.now()
        decision.model = query.model[:MAX_NAME]
        decision.size, decision.stream = query.size, query.stream

    def _note_routed(self, decision: Decision, outcome: Routed, made_id: str) -> None:
        """Record that a pod was picked."""
        decisions = self._decisions
        decision.decided_at = now = decisions.now()
        if decision.held_for:
            decision.held_seconds = now - decision.asked_at
        if made_id:
            decision.request_id = made_id
        decision.routed(outcome)
        decisions.decided(decision)

    def _note_end(self, decision: Decision) -> None:
        """Complete the record of the request."""
        decisions = self._decisions
        if not decision.number:
            decision.decided_at = decisions.now()
            if decision.held_for:
                decision.held_seconds = decision.decided_at - decision.asked_at
            if not decision.outcome:
                decision.outcome = "cancelled"
                decision.reason = decision.reason or "client-left"
            decisions.decided(decision)
        decisions.ended(decision)

    def _note_answer(self, decision: Decision, routed: Routed, answer: Answer) -> None:
        """Record how the answer began, and which pod gave it."""
        decisions = self._decisions
        decision.answered_at = decisions.now()
        decision.status = answer.status
        if not answer.from_the_pod:
            decision.details = answer.details[:MAX_NAME]
        state = routed.reservation.state
        if answer.served_by and answer.served_by != decision.endpoint:
            decision.retried_on = state.pod.name

    def _note_own(self, algorithm: str, outcome: str, reason: str, status: int) -> None:
        """Record that the router itself answers the request."""
        decision = self._decision
        if decision is not None and not decision.number:
            decision.algorithm = algorithm[:MAX_NAME]
            decision.outcome, decision.reason, decision.status = outcome, reason, status
