"""How the body of a request arrives: in one message or in pieces, and when it is complete.

The rules:

- In STREAMED and FULL_DUPLEX_STREAMED mode, the body is complete with the piece that ends the
  stream, and with the piece after which nothing can follow: all bytes of ``content-length`` are
  there, or the JSON or the form is complete. In these modes Envoy may send request trailers only
  after the headers are answered, so the router does not wait for the end of the stream.
- Without ``protocol_config``, what arrives decides. A gateway that sends a body before the headers
  are answered gets the pod with that answer, as in FULL_DUPLEX_STREAMED mode. A gateway that sends
  none in time waits for the answer, as in BUFFERED mode.
- If the headers were answered before either was seen, and for a stream that begins with the
  response, each piece is answered with one message that contains it. A gateway of full duplex
  forwards it. Envoy before 1.33 does not know the field and forwards what it has.
"""

from msgspec import structs

from lora_router.extproc import answers
from lora_router.extproc.body import BodyError, BodyErrorKind, is_whole, read_body
from lora_router.extproc.body_pieces import request_piece, request_pieces
from lora_router.extproc.collected_body import CollectedBody
from lora_router.extproc.events import Message, RequestBody, RequestTrailers
from lora_router.extproc.outputs import Outputs
from lora_router.extproc.own_answers import OwnAnswers
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.renamed import CLEARED
from lora_router.extproc.states import HELD_WITH_TRAILERS, PIECES, ROUTED, WHOLE_BODY

BODY_WAIT_SECONDS = 0.05
"""How long the router waits for a body if the gateway does not tell whether it sends one before the
headers are answered. A gateway that waits for this answer, such as Envoy before 1.33, is answered
so much later."""

_FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


class BodyArrival(OwnAnswers):
    """The actions of an exchange that concern the arrival of the request body."""

    __slots__ = ()

    # Implemented by the exchange

    def _decide(self, body: Message, *, cut_short: bool = False, trailers: bool = False) -> Outputs:
        """Decide about the request, now that its body is there."""
        raise NotImplementedError

    # In one message

    def take_whole_body(self, body: RequestBody) -> Outputs:
        """Handle a body that arrives in one message."""
        if body.subset is not None:
            self._setup = structs.replace(self._setup, subset=body.subset)
        if len(body.body) > self.context.max_body_bytes:
            return self._too_large()
        if not body.ends and not self._setup.is_told and self._may_be_cut(body.body):
            # More of it may follow.
            self.state = PIECES
            self._collected = CollectedBody(answers_headers=False)
            self._collected.add(body)
            return ()
        # Trailers may follow a body that is complete.
        is_whole = body.ends or len(body.body) == self._headers.content_length
        return self._decide(body.body, cut_short=not is_whole)

    def decide_without_body(self, _trailers: RequestTrailers) -> Outputs:
        """Refuse a request without a body, because its headers were answered without a pod."""
        return self._bad_body(BodyError(BodyErrorKind.MALFORMED, "The request has no body."))

    # In pieces

    def collect(self, piece: RequestBody) -> Outputs:
        """Handle a piece of the body."""
        collected = self._collected
        assert collected is not None  # noqa: S101 -- made when this state was entered
        collected.add(piece)
        if self._held is not None:
            # The gateway did not wait for the answer to the headers.
            self._held.cancel()
            self._held = None
            self._came_unasked()
        if piece.subset is not None:
            self._setup = structs.replace(self._setup, subset=piece.subset)
        if collected.size > self.context.max_body_bytes:
            return self._too_large()
        if piece.ends or self._is_complete(collected, piece.body):
            return self._decide(collected.whole())
        return ()

    def _is_complete(self, collected: CollectedBody, piece: Message) -> bool:
        """Return whether the rest of the stream can be empty only, or white space."""
        length = self._headers.content_length
        if length is not None and collected.size <= length:
            return collected.size == length
        # A complete body ends so. To parse an incomplete one again and again would be expensive.
        if not piece[-4:].rstrip().endswith((b"}", b"--")) or not collected.is_worth_a_try():
            return False
        return is_whole(collected.whole(), self._headers.content_type)

    def _may_be_cut(self, body: Message) -> bool:
        """Return whether more may follow of a body that arrived in one message."""
        length = self._headers.content_length
        if length is not None and len(body) <= length:
            return len(body) < length
        try:
            read_body(body, self._headers.content_type)
        except BodyError as error:
            return error.kind is BodyErrorKind.MALFORMED
        return False

    def decide_at_trailers(self, trailers: RequestTrailers) -> Outputs:
        """Handle trailers that complete the body."""
        if trailers.subset is not None:
            self._setup = structs.replace(self._setup, subset=trailers.subset)
        assert self._collected is not None  # noqa: S101 -- made when this state was entered
        return self._decide(self._collected.whole(), trailers=True)

    def request_ended(self) -> Outputs:
        """Handle that the gateway sends nothing more. The stream ends, unless the state is held."""
        collected = self._collected
        if self.state is not PIECES or collected is None or not collected.count:
            return ()
        # A gateway that sends no configuration may leave the last piece unmarked, too.
        return () if self._setup.is_told else self._decide(collected.whole())

    # Without a word about how

    def _await_body(self) -> None:
        self._held = self.context.director.clock.call_later(BODY_WAIT_SECONDS, self._no_body_came)

    def _came_unasked(self) -> None:
        """Handle that a body arrives before the headers are answered."""
        self._setup = structs.replace(
            self._setup, body_mode=_FULL_DUPLEX, response_body_mode=_FULL_DUPLEX
        )

    def _no_body_came(self) -> None:
        """Answer the headers, because the gateway waits for that before it sends a body."""
        self._held = self._collected = None
        self._setup = setup = structs.replace(self._setup, collects=False)
        self.state = WHOLE_BODY
        names = self.context.headers
        self._on_late((answers.clearing(names, setup.body_mode, setup.response_body_mode),))

    # After the decision

    def keep(self, piece: RequestBody) -> Outputs:
        """Keep a piece that arrives while a request is held that is decided already."""
        collected = self._collected
        if collected is not None and not collected.ends:
            collected.add(piece)
            if not self._setup.is_told and collected.answers_headers:
                self._came_unasked()
            if collected.size > self.context.max_body_bytes:
                return self._too_large()
        return ()

    def defer_trailers(self, _trailers: RequestTrailers) -> Outputs:
        """Answer the trailers later, when the held request gets a pod."""
        self.state = HELD_WITH_TRAILERS
        return ()

    def pass_piece(self, piece: RequestBody) -> Outputs:
        """Forward a piece of a body that the router does not read."""
        if piece.ends:
            self.state = ROUTED
        if self._collected is not None:  # The body was replaced, and this is its rest.
            return self._drop(piece)
        setup = self._setup
        if setup.body_mode == _FULL_DUPLEX:
            return request_pieces(piece.body, ends=piece.ends)
        if not setup.is_told and setup.collects:
            return (request_piece(piece.body, ends=piece.ends),)
        return (answers.CONTINUE_BODY,)

    def _drop(self, piece: RequestBody) -> Outputs:
        if self._setup.body_mode != _FULL_DUPLEX:
            return (CLEARED,)
        return request_pieces(b"", ends=True) if piece.ends else ()

    def pass_trailers(self, _trailers: RequestTrailers) -> Outputs:
        """Forward the trailers."""
        self.state = ROUTED
        return (answers.CONTINUE_TRAILERS,)
