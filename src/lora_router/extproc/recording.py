"""The record of an exchange's decision: what is written into it, and when.

Each request whose headers arrive has one record, however it ends. It is counted as decided once:
when a pod is picked, when the router itself answers, or at the end of its stream.
"""

from lora_router.extproc.context import SessionContext
from lora_router.extproc.decision_metadata import encode_metadata, metadata_of
from lora_router.extproc.events import RequestHeaders
from lora_router.extproc.gateway_faults import UNSEEN_IN_A_ROW
from lora_router.extproc.path_rules import Place
from lora_router.extproc.stream_setup import Setup
from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.grpc_server.status import INTERNAL, RESOURCE_EXHAUSTED
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.waiting_queue import Held
from lora_router.telemetry.decisions import MAX_ID, MAX_NAME, Decision, DecisionLog

_CLIENT_LEFT = "client-left"
_ANSWERED_BEFORE = "answered-before"
_CUT = {INTERNAL: "internal-error", RESOURCE_EXHAUSTED: "router-overloaded"}
"""Why the router itself ends a stream before a decision, by the status of gRPC."""
_PROTOCOL_ERROR = "protocol-error"
_NO_PLACE = Place(None, "")
_NO_HEADERS = RequestHeaders("", "", "", None, "", None, None, "", ends=False, setup=Setup())
"""What is known of a request before its headers arrive."""


class Recording:
    """The part of an exchange that keeps its record. Without a log of decisions there is none."""

    __slots__ = (
        "_arrived_at",
        "_asked",
        "_decision",
        "_headers",
        "_log_of_decisions",
        "_made_id",
        "_place",
        "context",
        "traceparent",
    )

    _log_of_decisions: DecisionLog
    """The log that has the record. Set if the request is recorded."""

    def __init__(self, context: SessionContext) -> None:
        self.context = context
        self._headers = _NO_HEADERS
        self._place = _NO_PLACE
        """What the path of the request means. Set with the headers."""
        self._made_id = ""
        """The ID that the router gave to the request. Empty: none, or the client did."""
        self._arrived_at: float | None = None
        """When the headers of the request arrived. ``None``: it is not recorded, or has ended."""
        self._asked: RouteQuery | None = None
        """What the request asks for, while that is decided."""
        self._decision: Decision | None = None
        """The record of the request. Most requests are routed at once. Their record is made then,
        because all that it needs is known, and to write a field later costs more than to make it.
        """
        self.traceparent = ""
        """The gateway's span of this stream, if requests are traced and the gateway traces too."""

    def _record(self) -> Decision | None:
        """Return the record of the request; ``None``: it is not recorded."""
        decision = self._decision
        if decision is None and self._arrived_at is not None:
            headers = self._headers
            request_id, path = headers.request_id or self._made_id, self._place.path
            decision = self._log_of_decisions.begin(request_id, path, self._arrived_at)
            self._decision = decision
            decision.traceparent = (self.traceparent or headers.traceparent)[:MAX_NAME]
            if self._asked is not None:
                self._note_question(decision, self._asked)
        return decision

    def _note_question(self, decision: Decision, query: RouteQuery, algorithm: str = "") -> None:
        """Record what the request asks for, once it is known.

        Args:
            decision: The record.
            query: What the request asks for.
            algorithm: What stands for an algorithm, where none is asked.
        """
        if not decision.asked_at:
            decision.asked_at = self._log_of_decisions.now()
        decision.model = query.model[:MAX_NAME]
        decision.size, decision.stream = query.size, query.stream
        decision.algorithm = algorithm

    def _note_passing(self, decision: Decision, algorithm: str) -> None:
        """Record that the request goes to any pod, whatever it asks for."""
        if not decision.asked_at:
            decision.asked_at = self._log_of_decisions.now()
        decision.algorithm = algorithm

    def _note_held(self, decision: Decision, held: Held) -> None:
        """Record that the request waits for a pod."""
        if held.queue is not None:  # An algorithm holds it.
            decision.algorithm = held.question.algorithm
        decision.held_for, decision.held_looks = held.reason[:MAX_NAME], held.looks
        self._note_adapter(decision, held.question.model)

    def _note_adapter(self, decision: Decision, model: str) -> None:
        """Record which adapter and base model the request is for, although no pod is picked."""
        serving = self.context.director.fleet.serving(model)
        pods = serving.pods
        if pods:
            decision.adapter, decision.base_model = "", model[:MAX_NAME]
            if serving.is_adapter:
                decision.adapter = model[:MAX_NAME]
                decision.base_model = (pods[0].adapters.get(model) or "")[:MAX_NAME]

    def _note_routed(self, outcome: Routed) -> bytes:
        """Record that a pod was picked. Return the metadata that tell Envoy of it."""
        asked, arrived_at = self._asked, self._arrived_at
        if asked is None or arrived_at is None or self._decision is not None:
            return self._note_routed_late(outcome)
        # Each request that is not held comes here, so calls and names are counted.
        decisions, headers = self._log_of_decisions, self._headers
        reservation, seconds, reason = outcome.reservation, outcome.seconds, outcome.reason
        state, adapter, algorithm = reservation.state, reservation.adapter, outcome.algorithm
        pod = state.pod
        if adapter is None:
            adapter, base_model = "", outcome.model
        else:
            base_model = state.catalog.adapters.get(adapter) or ""
        request_id, path, model = headers.request_id or self._made_id, asked.path, asked.model
        # To slice texts costs several times as much as to look at their lengths. Names that pods
        # serve are bounded where they are read, and are not copied.
        if len(request_id) + len(path) + len(model) + len(reason) > MAX_ID:
            request_id, path = request_id[:MAX_ID], path[:MAX_NAME]
            model, reason = model[:MAX_NAME], reason[:MAX_NAME]
        if (prompt := outcome.prompt) is None:
            tokens = cached = None
        else:
            tokens, cached = prompt.tokens, prompt.cached
        now = decisions.now()
        decisions.count = number = decisions.count + 1
        # To set a field later costs more than to pass it.
        self._decision = decision = Decision(
            arrived_at,
            now - seconds,
            now,
            request_id,
            path,
            model,
            asked.size,
            asked.stream,
            adapter,
            base_model,
            algorithm,
            "routed",
            reason,
            pod.name,
            pod.address,
            seconds,
            outcome.place,
            outcome.spilled,
            outcome.replicated,
            outcome.looks,
            outcome.notes,
            tokens,
            cached,
            number,
        )
        if traceparent := self.traceparent or headers.traceparent:
            decision.traceparent = traceparent[:MAX_NAME]
        # ``DecisionLog.decided``, without the call.
        decisions.keep(decision)
        if decisions.on_decided:
            decisions.tell_decided(decision)
        return metadata_of(pod.name, reason, algorithm, adapter, base_model)

    def _note_routed_late(self, outcome: Routed) -> bytes:
        """Record that a request that has a record already, or asks for nothing, got a pod."""
        decision = self._record()
        assert decision is not None  # noqa: S101 -- the request is recorded
        decision.decided_at = self._log_of_decisions.now()
        decision.routed(outcome)
        self._log_of_decisions.decided(decision)
        return encode_metadata(decision)

    def _note_answer(self, decision: Decision, routed: Routed, answer: Answer) -> None:
        """Record how the answer began, and which pod gave it."""
        decision.answered_at = self._log_of_decisions.now()
        decision.status = answer.status
        details = answer.details
        if details and details != FROM_THE_POD:  # ``from_the_pod``, without a call.
            decision.details = details[:MAX_NAME]
        served_by = answer.served_by
        if served_by and served_by != decision.endpoint:
            pod = routed.reservation.state.pod
            # A pod that the router does not know has no name.
            decision.retried_on = pod.name if pod.address == served_by else served_by[:MAX_NAME]

    def _note_own(self, algorithm: str, outcome: str, reason: str, status: int) -> None:
        """Record that the router itself answers the request."""
        decision = self._record()
        if decision is not None and not decision.number:
            decision.algorithm = algorithm[:MAX_NAME]
            decision.outcome, decision.reason, decision.status = outcome, reason, status

    def _note_refused(
        self, decision: Decision, refused: Refused, strategy: str | None, status: int
    ) -> None:
        """Record that no pod gets the request.

        Args:
            decision: The record.
            refused: Why.
            strategy: The algorithm that a header asks for, if any.
            status: The status of the answer.
        """
        decision.looks = refused.looks
        algorithm = decision.algorithm or strategy
        if refused.refusal is Refusal.UNKNOWN_ALGORITHM:
            algorithm = "none"  # Clients choose the name.
        if refused.model and not decision.adapter:
            self._note_adapter(decision, refused.model)
        algorithm = algorithm or self.context.director.default_algorithm
        self._note_own(algorithm, "refused", refused.refusal.value, status)

    def _note_other_answer(self, answer: Answer | None) -> None:
        """Record that somebody else answers the request before a pod is picked."""
        decision = self._record()
        if decision is not None:
            decision.reason = _ANSWERED_BEFORE
            if answer is not None:
                decision.status = answer.status
                if not answer.from_the_pod:
                    decision.details = answer.details[:MAX_NAME]

    def _note_cut(self, code: int, status: int) -> None:
        """Record that the router ends the stream with a status, because it must not go on.

        Args:
            code: The status of gRPC.
            status: The status of HTTP that the client gets; 0: it gets none from the router.
        """
        decision = self._record()
        if decision is not None and not decision.number:
            decision.reason, decision.status = _CUT.get(code, _PROTOCOL_ERROR), status

    def _note_end(self) -> None:
        """Complete the record of the request, if it is recorded."""
        decision = self._decision
        if decision is None:
            decision = self._record()
            if decision is None:
                return
        self._arrived_at = self._decision = None
        decisions = self._log_of_decisions
        if not decision.number:
            if not decision.outcome:
                decision.outcome = "cancelled"
                decision.reason = decision.reason or _CLIENT_LEFT
            decision.undecided(decisions.now())
            decisions.decided(decision)
        elif not decision.answered_at:
            # A gateway that never shows answers says nothing by the lack of one.
            decision.unanswered = self.context.gateway.unseen < UNSEEN_IN_A_ROW
        decisions.ended(decision)
