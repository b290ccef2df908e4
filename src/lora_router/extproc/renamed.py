"""What Envoy has to change in a request whose pod is asked for another model than the client wrote.

The name is where the client wrote it: in the body, in the query, or in the path. A body of Azure's
API names no model, because the path does; the name is added to it, since pods read only the body.

The changes are merged into the answer that names the pod: Protobuf merges the fields of messages
that follow each other.
"""

from urllib.parse import quote, unquote, unquote_plus

from msgspec import Struct

from lora_router.extproc.answer_names import AnswerNames
from lora_router.extproc.events import Message
from lora_router.extproc.message_fields import field_head
from lora_router.extproc.model_edits import with_model
from lora_router.extproc.path_rules import ModelIn, Place
from lora_router.extproc.pb.core_pb2 import HeaderValue, HeaderValueOption
from lora_router.extproc.pb.ext_proc_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
)
from lora_router.routing.model_names import SGLANG
from lora_router.routing.outcome import Routed

# The tags of ProcessingResponse; BodyResponse; CommonResponse; BodyMutation.
_REQUEST_BODY, _RESPONSE, _BODY_MUTATION, _BODY = b"\x1a", b"\x0a", b"\x1a", b"\x0a"
_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_FALLBACK_HEADER = "x-lora-router-fallback"

CLEARED = ProcessingResponse(
    request_body=BodyResponse(response=CommonResponse(body_mutation=BodyMutation(clear_body=True)))
).SerializeToString()
"""Answers a piece of a body that Envoy forwards: removes its bytes."""

_WITHOUT_LENGTH = ProcessingResponse(
    response_headers=HeadersResponse(
        response=CommonResponse(header_mutation=HeaderMutation(remove_headers=["content-length"]))
    )
).SerializeToString()
FELL_BACK = ProcessingResponse(
    response_headers=HeadersResponse(
        response=CommonResponse(
            header_mutation=HeaderMutation(
                set_headers=[
                    HeaderValueOption(
                        header=HeaderValue(key=_FALLBACK_HEADER, raw_value=b"base"),
                        append_action=_OVERWRITE,
                    )
                ]
            )
        )
    )
).SerializeToString()
"""Answers ``response_headers``: tells the client that the base model answers instead."""


class Original(Struct, frozen=True):
    """What a request says of its model, kept until its pod is picked."""

    place: Place
    path: str
    """As the client wrote it, with the query."""
    body: Message | None = None
    """``None``: the router does not read it, or there is none."""
    content_type: str = ""
    named: str = ""
    """The model that the body names; empty: none."""
    lora_path: str = ""
    """The adapter that the body names in SGLang's own field."""


class Renaming(Struct, frozen=True):
    """The changes of one request."""

    body: bytes | None
    """The whole new body; ``None``: it stays."""
    path: str | None
    """``None``: it stays."""
    answer_names: AnswerNames | None = None
    """What puts the client's name back into the answer; ``None``: nothing does."""

    def to_whole_body(self, answer: bytes) -> bytes:
        """Return the answer to a body in one message, with the changes."""
        common = CommonResponse(header_mutation=self._headers()).SerializeToString()
        # Put together here, because Protobuf would copy a long body three times.
        body = b"" if self.body is None else self.body
        if self.body is not None:
            head = field_head(_BODY, len(body))
            common += field_head(_BODY_MUTATION, len(head) + len(body)) + head
        size = len(common) + len(body)
        response = field_head(_RESPONSE, size)
        outer = field_head(_REQUEST_BODY, len(response) + size)
        return b"".join((answer, outer, response, common, body))

    def to_headers(self, answer: bytes) -> bytes:
        """Return the answer to the headers, with the changes."""
        common = CommonResponse(header_mutation=self._headers())
        return (
            answer
            + ProcessingResponse(
                request_headers=HeadersResponse(response=common)
            ).SerializeToString()
        )

    def _headers(self) -> HeaderMutation:
        mutation = HeaderMutation()
        if self.body is not None:
            _set(mutation, "content-length", str(len(self.body)))
        if self.path is not None:
            _set(mutation, ":path", self.path)
        if self.answer_names is not None:
            # The name cannot be found in a compressed answer.
            mutation.remove_headers.append("accept-encoding")
        return mutation


def streamed_pieces(body: bytes, count: int) -> list[bytes]:
    """Answer the pieces of a body that Envoy forwards, so that they become another body."""
    first = ProcessingResponse(
        request_body=BodyResponse(response=CommonResponse(body_mutation=BodyMutation(body=body)))
    ).SerializeToString()
    return [first, *[CLEARED] * (count - 1)]


def answer_in_pieces(passes: bytes, modes: bytes) -> bytes:
    """Return an answer to response headers that makes Envoy send the body, whose length changes.

    Args:
        passes: The answer to the headers without that.
        modes: The modes to ask for, if they are others than the configured ones.
    """
    return passes + _WITHOUT_LENGTH + modes


def answer_piece(piece: bytes) -> bytes:
    """Answer a piece of a response that Envoy forwards: other bytes take its place."""
    mutation = BodyMutation(body=piece) if piece else BodyMutation(clear_body=True)
    return ProcessingResponse(
        response_body=BodyResponse(response=CommonResponse(body_mutation=mutation))
    ).SerializeToString()


def renaming_of(original: Original, routed: Routed, *, as_asked: bool = False) -> Renaming | None:
    """Return the changes that make a request name the model that its pod is asked for.

    Args:
        original: What the request says.
        routed: Where it goes.
        as_asked: Whether the answer names the model as the client did.

    Raises:
        BodyError: The name in the body cannot be replaced.
    """
    model, place, body = routed.model, original.place, original.body
    # What the body says counts, because the pod reads it.
    in_place = place.model if not original.named else ""
    path = None
    if in_place and in_place != model:
        path = _renamed_path(original.path, place, model)
    new = None
    # A pod answers a body without a name by its base model.
    needs_name = bool(in_place) or routed.reservation.adapter is not None
    if (
        body is not None
        and original.named != model
        and (original.named or needs_name)
        and not (original.lora_path and routed.reservation.state.pod.engine == SGLANG)
    ):
        new = with_model(body, original.content_type, original.named, model)
    if path is None and new is None:
        return None
    asked = original.named or in_place
    return Renaming(new, path, AnswerNames(model, asked) if as_asked and asked else None)


def _renamed_path(path: str, place: Place, model: str) -> str | None:
    """Return the path with another model; ``None``: it is not written as usual, and stays."""
    written, mark, query = path.partition("?")
    new = quote(model, safe="")
    if place.rule is not None and place.rule.model_in is ModelIn.QUERY:
        fields = [
            f"{field.partition('=')[0]}={new}"
            if unquote_plus(field.partition("=")[0]) == "model"
            else field
            for field in query.split("&")
        ]
        return written + mark + "&".join(fields)
    # The segment before the model is a fixed word.
    before = "" if place.rule is None else place.rule.path.partition("/{model}")[0]
    word = before.rpartition("/")[2]
    segments = written.split("/")
    for number in range(1, len(segments)):
        if unquote(segments[number]) == place.model and unquote(segments[number - 1]) == word:
            segments[number] = new
            return "/".join(segments) + mark + query
    return None


def _set(mutation: HeaderMutation, name: str, value: str) -> None:
    mutation.set_headers.append(
        HeaderValueOption(
            header=HeaderValue(key=name, raw_value=value.encode()), append_action=_OVERWRITE
        )
    )
