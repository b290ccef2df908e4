"""The actions of a session: what it does about each event. ``session`` defines when.

The rules:

- The headers that only the router may set are removed or overwritten in every case, with the first
  answer that can change headers, before the pod is known.
- The answer to the body can change headers only if Envoy has not forwarded them. Therefore, in the
  buffered modes, the headers are answered at once and changed with the body. In the streamed modes,
  the answer to the headers waits for the body. In some modes Envoy would wait for that answer
  without sending a body (NONE, and STREAMED without
  ``send_body_without_waiting_for_header_response``). In those modes the router requests BUFFERED,
  which requires ``allow_mode_override``.
- In FULL_DUPLEX_STREAMED mode, every piece of a body must be sent back. Otherwise it is lost.
  ``body_arrival`` has the rules about bodies.
- The path decides what is done with a request (``path_rules``). If the body is not needed, the
  answer to the headers names the pod, and the router asks Envoy not to send the body.
- ``end`` releases the reservation exactly once. A refused request has no reservation.
"""

from functools import partial

from msgspec import structs

from lora_router.extproc import answers
from lora_router.extproc.body import (
    BodyError,
    BodyFields,
    checked_model,
    is_json,
    read_body,
)
from lora_router.extproc.body_arrival import BodyArrival
from lora_router.extproc.collected_body import CollectedBody
from lora_router.extproc.engine_fields import read_lora_path
from lora_router.extproc.errors import ErrorAnswer
from lora_router.extproc.events import Message, Observation, RequestHeaders
from lora_router.extproc.id_search import NamedId, ids_in_body
from lora_router.extproc.outputs import Outputs
from lora_router.extproc.own_answers import HOLD_MARGIN_SECONDS
from lora_router.extproc.path_rules import ModelIn, PathRule, Place, Treatment
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.prompt_reading import read_prompt
from lora_router.extproc.renamed import (
    Original,
    Renaming,
    renaming_of,
)
from lora_router.extproc.routed_answer import encode_routed
from lora_router.extproc.routed_pieces import answers_to_body, answers_to_headers
from lora_router.extproc.states import (
    HELD,
    HELD_WITH_TRAILERS,
    PASSING,
    PIECES,
    ROUTED,
    START,
    WHOLE_BODY,
)
from lora_router.extproc.sticky_ids import WAIT_SECONDS
from lora_router.routing.director import PASS_THROUGH
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refused
from lora_router.routing.sticky import STICKY
from lora_router.routing.waiting_queue import Held

_PLAIN = ("", "identity")
"""Values of ``content-encoding`` of a body that the router can read."""
_NO_FIELDS = BodyFields("", stream=False, size=0)
_PARTIAL = ProcessingMode.BUFFERED_PARTIAL
_FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


class Exchange(BodyArrival):
    """One HTTP request and its response. See the head of this file for the rules."""

    __slots__ = ()

    # The request

    def begin(self, headers: RequestHeaders) -> Outputs:
        """Handle the request headers."""
        context, setup = self.context, headers.setup
        self._headers, self._setup = headers, setup
        self._place = place = context.paths.find(headers.method, headers.path)
        if context.decisions is not None:
            self._log_of_decisions = context.decisions
            self._arrived_at = context.decisions.now()
        if headers.too_many:
            return self._too_many_headers()
        if headers.ends or not (place.reads_body or self._needs_body(place)):
            return self._begin_without_body(place)
        if headers.content_encoding not in _PLAIN:
            return self._encoded()
        if headers.content_length is not None and headers.content_length > context.max_body_bytes:
            return self._too_large()
        if setup.collects:
            self.state = PIECES
            self._collected = CollectedBody()
            if not setup.is_told:
                self._await_body()
            return ()
        self.state = WHOLE_BODY
        return (answers.clearing(context.headers, setup.body_mode, setup.response_body_mode),)

    def _needs_body(self, place: Place) -> bool:
        """Return whether the body may name the model. The body of an unknown path may, as JSON."""
        rule = place.rule
        if rule is None:
            # Some gateways send no path at all.
            return not self._headers.path or is_json(self._headers.content_type)
        if rule.treatment is Treatment.ROUTED:
            return rule.model_in is not ModelIn.QUERY
        return bool(rule.ids_in) or rule.treatment is Treatment.EVERY_POD

    def _begin_without_body(self, place: Place) -> Outputs:
        """Handle a request whose body the router does not read, or that has none."""
        rule = place.rule
        if rule is None:
            if self.context.refuse_unknown_paths:
                return self._refuse_path()
        elif rule.treatment is Treatment.REFUSED:
            return self._refuse_path()
        elif rule.treatment is Treatment.EVERY_POD:
            return self._to_every_pod(b"")
        elif rule.treatment is Treatment.ANSWERED:
            return self._answer_about_models(place)
        elif rule.treatment is Treatment.STICKY and place.resource:
            return self._stick(NamedId(place.resource, rule.id_kind)) or self._pass_through()
        elif rule.treatment is Treatment.ROUTED and place.model:
            return self._decide_at_headers(place.model)
        return self._pass_through()

    def observe(self, _event: Observation) -> Outputs:
        """Answer nothing for the rest of the stream."""
        self._arrived_at = self._decision = None
        self.end()
        return ()

    # Deciding

    def _pass_through(self, *, trailers: bool = False) -> Outputs:
        """Send the request to any pod, now that its headers or its whole body have arrived."""
        decision = self._record()
        if decision is not None:
            self._note_passing(decision, PASS_THROUGH)
        outcome = self.context.director.pass_through(self._setup.subset)
        if self.state is START:
            self._collected = CollectedBody(ends=self._headers.ends)
        return self._decided(outcome, trailers=trailers)

    def _decide_at_headers(self, model: str) -> Outputs:
        """Route by a name that the path or the query contains."""
        model = self._headers.new_model or model
        try:
            checked_model(model)
        except BodyError as error:
            return self._bad_body(error)
        self._collected = CollectedBody(ends=self._headers.ends)
        if self.context.director.names.may_change:
            self._original = Original(self._place, self._headers.path)
        return self._route(BodyFields(model, stream=False, size=0), trailers=False)

    def _decide(self, body: Message, *, cut_short: bool = False, trailers: bool = False) -> Outputs:
        rule = self._place.rule
        if rule is not None and rule.treatment is Treatment.EVERY_POD:
            return self._to_every_pod(body, cut_short=cut_short, trailers=trailers)
        try:
            fields = read_body(
                body,
                self._headers.content_type,
                special_numbers=self.context.special_numbers,
            )
        except BodyError as error:
            if rule is None and not cut_short and not self._is_bare():
                return self._decide_unnamed(trailers=trailers)
            return self._bad_body(error, cut_short=cut_short)
        if self.context.director.names.may_change or not fields.model:
            try:
                fields = self._keep_original(body, fields)
            except BodyError as error:
                return self._bad_body(error)
        self._asks_usage = fields.asks_usage
        if self._collected is not None and self._setup.body_mode != _FULL_DUPLEX:
            self._collected.forget_contents()
        if rule is None:
            if not fields.model and not self._is_bare():
                return self._decide_unnamed(trailers=trailers)
        elif rule.ids_in:
            return self._decide_by_id(rule, body, fields, trailers=trailers)
        return self._route(fields, trailers=trailers)

    def _keep_original(self, body: Message, fields: BodyFields) -> BodyFields:
        """Keep what the request says of its model. Return what it asks for."""
        headers, names = self._headers, self.context.director.names
        lora_path = read_lora_path(body) if names.has_sglang else ""
        self._original = Original(
            self._place, headers.path, body, headers.content_type, fields.model, lora_path
        )
        if lora_path:
            asked = names.with_lora_path(fields.model, lora_path)
        elif headers.new_model:
            asked = checked_model(headers.new_model)
        else:
            return fields
        return structs.replace(fields, model=asked)

    def _decide_by_id(
        self, rule: PathRule, body: Message, fields: BodyFields, *, trailers: bool
    ) -> Outputs:
        """Send a request to the pod that made the ID which its body names, if it names one."""
        named = ids_in_body(body, rule.ids_in)
        self._stores = named.is_stored
        if named.first is not None:
            outputs = self._stick(named.first, fields, trailers=trailers)
            if outputs is not None:
                return outputs
        return self._without_id(fields, trailers=trailers)

    def _stick(
        self,
        named: NamedId,
        fields: BodyFields = _NO_FIELDS,
        *,
        trailers: bool = False,
        may_wait: bool = True,
    ) -> Outputs | None:
        """Send a request to the pod that made an ID; ``None``: route it as if it named none."""
        ids = self.context.ids
        maker = ids.maker(named)
        if maker is None:
            return None
        decision = self._record()
        if self.state is START:
            self._collected = CollectedBody(ends=self._headers.ends)
        if isinstance(maker, ErrorAnswer):
            if may_wait:
                self._held = ids.wait(
                    named, lambda: self._send_late(lambda: self._stick_late(named, fields))
                )
            if self._held is None:
                return self._refuse("id-not-found", maker)
            self.state = HELD_WITH_TRAILERS if trailers else HELD
            hold = self.context.director.max_hold_seconds
            if decision is not None:
                self._note_question(decision, self._query(fields), STICKY)
                decision.held_for = "unknown-id"
            return (answers.more_time(WAIT_SECONDS + hold + HOLD_MARGIN_SECONDS),)
        query = self._query(fields)
        if decision is not None:
            self._note_question(decision, query, "" if query.model else STICKY)
        outcome = self.context.director.stick(query, maker)
        return self._decided(outcome, trailers=trailers)

    def _stick_late(self, named: NamedId, fields: BodyFields) -> Outputs:
        trailers = self.state is HELD_WITH_TRAILERS
        outputs = self._stick(named, fields, trailers=trailers, may_wait=False)
        return self._without_id(fields, trailers=trailers) if outputs is None else outputs

    def _without_id(self, fields: BodyFields, *, trailers: bool) -> Outputs:
        """Route a request on a path of IDs as if it named none."""
        rule = self._place.rule
        if rule is None or rule.treatment is Treatment.STICKY:
            return self._pass_through(trailers=trailers)
        return self._route(fields, trailers=trailers)

    def _is_bare(self) -> bool:
        """Return whether the gateway sends no path. Then JSON is an inference request."""
        headers = self._headers
        kind = headers.content_type
        return not headers.path and (not kind or is_json(kind))

    def _decide_unnamed(self, *, trailers: bool) -> Outputs:
        """Decide about a request on an unknown path whose body names no model."""
        if self.context.refuse_unknown_paths:
            return self._refuse_path()
        return self._pass_through(trailers=trailers)

    def _route(self, fields: BodyFields, *, trailers: bool) -> Outputs:
        self._asked = query = self._query(fields)
        if self._decision is not None:  # It waited for the maker of an ID.
            self._note_question(self._decision, query)
        outcome = self.context.director.route(query, self._decided_late)
        if isinstance(outcome, Held):
            self._held = outcome
            decision = self._record()
            if decision is not None:
                self._note_held(decision, outcome)
            self._asked = None
            self.state = HELD_WITH_TRAILERS if trailers else HELD
            return (answers.more_time(outcome.seconds + HOLD_MARGIN_SECONDS),)
        return self._decided(outcome, trailers=trailers)

    def _query(self, fields: BodyFields) -> RouteQuery:
        headers = self._headers
        return RouteQuery(
            fields.model or self._place.model,
            fields.stream,
            fields.size,
            self._place.path,
            headers.request_id,
            headers.strategy,
            headers.pod_filter,
            self._setup.subset,
            headers.rewrite_key,
            headers.objective,
            headers.tenant,
            headers.priority,
            partial(
                read_prompt, fields.prompt, self._place.path, fields.model, self.context.lengths
            ),
        )

    def _decided_late(self, outcome: Routed | Refused) -> None:
        trailers = self.state is HELD_WITH_TRAILERS
        self._send_late(lambda: self._decided(outcome, trailers=trailers))

    def _decided(self, outcome: Routed | Refused, *, trailers: bool) -> Outputs:
        if isinstance(outcome, Refused):
            return self._refused(outcome)
        renaming = None
        if self._original is not None:
            try:
                renaming = self._renaming_of(self._original, outcome)
            except BodyError as error:
                return self._bad_body(error)
            self._original = None
            if renaming is not None:
                self._answer_names = renaming.answer_names
        self._routed = outcome
        made_id = "" if self._headers.request_id else self._make_id()
        metadata = b""
        if self._arrived_at is not None:
            metadata = self._note_routed(outcome)
        self._asked = None
        if outcome.reservation.streamed:
            self._since = self.context.gateway.now()
        self.state = ROUTED
        collected, self._collected = self._collected, None
        answer = encode_routed(
            self.context.headers,
            outcome,
            to_body=collected is None or not collected.answers_headers,
            made_id=made_id,
            more=metadata,
        )
        if collected is None and renaming is None:
            return (answer, answers.CONTINUE_TRAILERS) if trailers else (answer,)
        if collected is None or not collected.answers_headers:
            outputs = answers_to_body(answer, renaming, collected)
        else:
            outputs = answers_to_headers(answer, renaming, collected, self._setup)
            if not collected.ends and not trailers:
                self.state = PASSING
                if renaming is not None and renaming.body is not None:
                    # White space that follows the old body would make the new one too long.
                    collected.forget_contents()
                    self._collected = collected
        if trailers:
            outputs.append(answers.CONTINUE_TRAILERS)
        return outputs

    def _renaming_of(self, original: Original, outcome: Routed) -> Renaming | None:
        """Return what the pod is asked for instead. If that fails, the pod gets nothing."""
        try:
            return renaming_of(original, outcome, as_asked=self.context.answers_as_asked)
        except BaseException:  # Such as a MemoryError.
            outcome.reservation.release()
            raise
