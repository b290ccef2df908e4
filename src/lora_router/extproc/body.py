"""The model's name, ``stream`` and the size, out of a request's body.

A JSON body is checked whole, because a broken one should be refused here and not by a pod; nothing
of it is built except the two fields, and nothing is copied. What stands before the model's name
cannot be left out: only by the ends of all the strings before it is it known to be in none of them.
Where readers of JSON differ, this one agrees with the pod, which reads with Python's ``json``: of
two equal keys the last counts, and a byte order mark is skipped (RFC 8259, section 8.1, allows it).
"""

from collections.abc import Iterable
from enum import Enum

import msgspec

from lora_router.extproc.multipart import MultipartError, read_fields

MAX_MODEL_LENGTH = 512
"""Characters. Names of models are paths or repository names; this is twice the longest of those."""

JSON_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/rerank",
        "/v1/score",
        "/v1/classify",
        "/tokenize",
        # The same handlers of vLLM under their other names.
        "/detokenize",
        "/pooling",
        "/rerank",
        "/v2/rerank",
        "/score",
        "/classify",
    }
)
FORM_PATHS = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})


class BodyErrorKind(Enum):
    """What is wrong with a body; the values are metric labels."""

    MALFORMED = "bad-body"
    """Not JSON, not an object, not a form; cut off, too deep, not UTF-8."""
    MODEL_TYPE = "model-not-a-string"
    MODEL_NAME = "bad-model-name"
    """A string that no model is called and that must not stand in a header."""


class BodyError(ValueError):
    """The body cannot be routed by. The message is safe to show: nothing of the body is in it."""

    def __init__(self, kind: BodyErrorKind, message: str) -> None:
        self.kind = kind
        self.message = message
        super().__init__(message)


class BodyFields(msgspec.Struct, frozen=True):
    """What routing needs of a body."""

    model: str
    """Empty if it is missing, null or empty."""
    stream: bool
    size: int
    """Bytes."""


class InferencePaths:
    """The paths whose body names a model."""

    __slots__ = ("_paths",)

    def __init__(self, extra: Iterable[str] = ()) -> None:
        self._paths = JSON_PATHS | FORM_PATHS | frozenset(extra)

    def match(self, path: str) -> bool:
        """Say whether ``path``, without its query, is one of them."""
        return path in self._paths


class _Document(msgspec.Struct):
    # Raw: a wrong type is then ours to judge, and a wrong `stream` is the pod's.
    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"false")


_decoder = msgspec.json.Decoder(_Document)
_text = msgspec.json.Decoder(str)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_body(body: bytes | bytearray, content_type: str) -> BodyFields:
    """Read a request's body.

    Args:
        body: All of it.
        content_type: The header. ``multipart/form-data`` is read as a form, all else as JSON.

    Raises:
        BodyError: It cannot be routed by; says why.
    """
    if content_type[:19].lower() == "multipart/form-data":
        return _read_form(body, content_type)
    return _read_json(body)


def _read_json(body: bytes | bytearray) -> BodyFields:
    size = len(body)
    if body.startswith(_BYTE_ORDER_MARK):
        body = body[3:]
    try:
        document = _decoder.decode(body)
    except msgspec.ValidationError:
        raise _malformed("The request's body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        # These messages name a byte's number and never repeat what is there.
        raise _malformed(f"The request's body is not valid JSON: {error}.") from None
    except RecursionError:
        raise _malformed("The request's body is nested too deeply.") from None
    # The decoder looks for the ends of strings that it skips, not into them.
    if not body.isascii() and not _is_utf8(body):
        raise _not_utf8()
    return BodyFields(_model(bytes(document.model)), bytes(document.stream) == b"true", size)


def _model(raw: bytes) -> str:
    if raw == b"null":
        return ""
    try:
        return checked_model(_text.decode(raw))
    except msgspec.ValidationError:
        raise BodyError(BodyErrorKind.MODEL_TYPE, "The field 'model' must be a string.") from None


def _read_form(body: bytes | bytearray, content_type: str) -> BodyFields:
    try:
        fields = read_fields(bytes(body), content_type, ("model", "stream"))
        model = fields.get("model", b"").decode()
    except MultipartError as error:
        raise _malformed(f"The request's form is broken: {error}.") from None
    except UnicodeDecodeError:
        raise _not_utf8() from None
    stream = fields.get("stream", b"").strip().lower() == b"true"
    return BodyFields(checked_model(model), stream, len(body))


def checked_model(model: str) -> str:
    """Return a model's name if it can be one: not too long, printable, fit for a header.

    Raises:
        BodyError: It cannot.
    """
    if len(model) > MAX_MODEL_LENGTH:
        raise _bad_name(f"is longer than {MAX_MODEL_LENGTH} characters")
    if not model.isprintable():
        # Control characters, line ends, lone surrogates, invisible ones.
        raise _bad_name("contains characters that cannot be printed")
    if model != model.strip():
        # Leading and trailing blanks do not survive in a header.
        raise _bad_name("begins or ends with a blank")
    return model


def _is_utf8(body: bytes | bytearray) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _malformed(message: str) -> BodyError:
    return BodyError(BodyErrorKind.MALFORMED, message)


def _not_utf8() -> BodyError:
    return _malformed("The request's body is not valid UTF-8.")


def _bad_name(what: str) -> BodyError:
    return BodyError(BodyErrorKind.MODEL_NAME, f"The model's name {what}.")
