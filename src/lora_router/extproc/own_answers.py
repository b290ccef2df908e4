"""What a session answers the client itself: questions about models, and refusals."""

from lora_router.extproc import answers
from lora_router.extproc.body import BodyError, BodyErrorKind
from lora_router.extproc.client_headers import in_own_answer
from lora_router.extproc.decision_metadata import encode_metadata
from lora_router.extproc.errors import (
    ErrorAnswer,
    body_answer,
    cut_body_answer,
    encoding_answer,
    failure_answer,
    for_anthropic,
    headers_answer,
    path_answer,
    refusal_answer,
    too_large_answer,
)
from lora_router.extproc.events import Message
from lora_router.extproc.models_answer import ModelsRequest
from lora_router.extproc.outputs import BodyPiece, Outputs
from lora_router.extproc.path_rules import AMBIGUOUS, Api, Place
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.response_side import ResponseSide
from lora_router.extproc.states import HELD, HELD_WITH_TRAILERS
from lora_router.fleet.pod_calls import PodRequest
from lora_router.routing.refusal import Refused
from lora_router.routing.waiting_queue import Held

HOLD_MARGIN_SECONDS = 2.0
"""Added to the time that Envoy is asked to wait for a held request, so that the router answers
before Envoy's timeout."""

HTTP_OK = 200
_PARTIAL = ProcessingMode.BUFFERED_PARTIAL


class OwnAnswers(ResponseSide):
    """The answers of the router."""

    __slots__ = ()

    # Answering

    def _answer_about_models(self, place: Place) -> Outputs:
        """Answer a question about models. No pod sees it."""
        headers = self._headers
        asked = ModelsRequest(
            place.model,
            headers.path.partition("?")[2],
            bool(headers.api_version),
            headers.pod_filter,
            self._setup.subset,
        )
        found = self.context.models.answer(asked, self._answered_late)
        if isinstance(found, bytes | ErrorAnswer):
            return self._answered(found)
        self._held = found
        self.state = HELD
        return (answers.more_time(found.seconds + HOLD_MARGIN_SECONDS),)

    def _to_every_pod(
        self, body: Message, *, cut_short: bool = False, trailers: bool = False
    ) -> Outputs:
        """Send the request to every pod, and answer when they have answered."""
        every_pod, rule, headers = self.context.every_pod, self._place.rule, self._headers
        if every_pod is None or rule is None:
            return self._refuse_path()
        if cut_short and self._setup.body_mode == _PARTIAL:
            return self._refuse("body-too-large", cut_body_answer())
        _, mark, query = headers.path.partition("?")
        request = PodRequest(
            headers.method or "POST",
            rule.path + mark + query,
            bytes(body),
            headers.content_type,
            headers.authorization,
        )
        self._collected = None
        found = every_pod.call(
            request, headers.pod_filter, self._setup.subset, self._every_pod_answered
        )
        if isinstance(found, ErrorAnswer):
            return self._refuse(found.code.replace("_", "-"), found)
        self._held = found
        self.state = HELD_WITH_TRAILERS if trailers else HELD
        return (answers.more_time(found.seconds + HOLD_MARGIN_SECONDS),)

    def _every_pod_answered(self, answer: ErrorAnswer) -> None:
        self.context.observer.decided("none", "answered", "every-pod", 0.0)
        self._note_own("none", "answered", "every-pod", answer.status)
        self._send_late(lambda: self._answer_client(answer))

    def _answered_late(self, answer: bytes | ErrorAnswer) -> None:
        self._send_late(lambda: self._answered(answer))

    def _answered(self, answer: bytes | ErrorAnswer) -> Outputs:
        self._held = None
        if isinstance(answer, ErrorAnswer):
            return self._refuse(answer.code.replace("_", "-"), answer)
        self.context.observer.decided("none", "answered", "models", 0.0)
        self._note_own("none", "answered", "models", HTTP_OK)
        # A list of models may be long, and all its readers get the same bytes.
        return (BodyPiece(self._end_by_own_answer(), memoryview(answer)),)

    # Refusing

    def _refused(self, refused: Refused) -> Outputs:
        answer = refusal_answer(refused, self._headers.strategy)
        decision = self._record()
        if decision is not None:
            self._note_refused(decision, refused, self._headers.strategy, answer.status)
        return self._answer_client(answer)

    def _bad_body(self, error: BodyError, *, cut_short: bool = False) -> Outputs:
        unfinished = cut_short and error.kind is BodyErrorKind.MALFORMED
        if unfinished and self._setup.headers_wait:
            # Only the start of the body is here. If its length is not stated, it may be complete
            # and malformed, with trailers that follow.
            self._log(
                "Envoy ignored the mode override to BUFFERED and sent the request body in pieces, "
                "or a client sent a malformed body with trailers; "
                "set request_body_mode: BUFFERED, or allow_mode_override: true, in its filter"
            )
        if unfinished and self._setup.body_mode == _PARTIAL:
            return self._refuse("body-too-large", cut_body_answer())
        return self._refuse(error.kind.value, body_answer(error))

    def _too_many_headers(self) -> Outputs:
        return self._refuse("too-many-headers", headers_answer(self.context.headers.gateway_max))

    def _encoded(self) -> Outputs:
        encoding = self._headers.content_encoding
        return self._refuse("unsupported-encoding", encoding_answer(encoding))

    def _too_large(self) -> Outputs:
        return self._refuse("body-too-large", too_large_answer(self.context.max_body_bytes))

    def _refuse_path(self) -> Outputs:
        place = self._place
        answer = path_answer(place.path, is_ambiguous=place.rule is AMBIGUOUS)
        return self._refuse("path-refused", answer)

    def _refuse(self, reason: str, answer: ErrorAnswer) -> Outputs:
        """Refuse a request about which the director does not decide, or no more."""
        if isinstance(self._held, Held):
            self._held.withdraw()
        self.context.observer.decided("none", "refused", reason, 0.0)
        self._note_own("none", "refused", reason, answer.status)
        return self._answer_client(answer)

    def _answer_client(self, answer: ErrorAnswer) -> Outputs:
        told = self._end_by_own_answer()
        return (answers.immediate(self._shaped(answer)) + told,)

    def _answer_to_failure(self) -> bytes:
        """Return what the client is told whose request is not decided, for a fault."""
        try:
            request_id = self._headers.request_id or self._make_id()
            return answers.immediate(self._shaped(failure_answer())) + in_own_answer(
                request_id, None
            )
        except Exception as error:  # There may be no memory for it.
            self._log("failed to answer a request whose session had failed", error)
            return b""

    def _shaped(self, answer: ErrorAnswer) -> ErrorAnswer:
        """Return an answer in the shape of the API that the client uses."""
        rule, headers = self._place.rule, self._headers
        if headers.api_version or (rule is not None and rule.api is Api.ANTHROPIC):
            return for_anthropic(answer, headers.request_id or self._made_id)
        return answer

    def _end_by_own_answer(self) -> bytes:
        """End the request. Return what its answer tells the client and Envoy of it."""
        request_id = self._headers.request_id or self._make_id()
        decision = self._record()
        self.end()
        if decision is None:
            return in_own_answer(request_id, None)
        told = decision if self.context.tells_decisions else None
        return in_own_answer(request_id, told) + encode_metadata(decision)
