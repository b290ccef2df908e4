"""Reads the name of the model, ``stream`` and the size from a request body.

A JSON body is validated completely, because the router should refuse an invalid one before it
reaches a pod. Only the two fields are decoded, and nothing is copied. Where the fields of the
prompt are is noted, for algorithms that ask for it (``prompt_reading``), and where others are that
few requests need. The part before the name of the model cannot be skipped: the end of every string
before it must be found to know that the name is not inside a string. Where JSON parsers differ,
this one agrees with the pod, which uses Python's ``json``: the last of two equal keys counts, and a
byte order mark is skipped (allowed by RFC 8259, section 8.1). A body that msgspec refuses is read a
second time, as leniently as the pod reads it (``lenient_json``).
"""

from enum import Enum
from functools import lru_cache

import msgspec

from lora_router.extproc.events import Message
from lora_router.extproc.lenient_json import LenientJsonError, rewritten
from lora_router.extproc.multipart import MultipartError, read_fields
from lora_router.extproc.prompt_fields import NOTHING, PromptFields
from lora_router.routing.model_name_rule import MAX_MODEL_LENGTH, why_invalid


class BodyErrorKind(Enum):
    """Why a body is invalid. The values are metric labels."""

    MALFORMED = "bad-body"
    """Not JSON, not an object, not a form, truncated, nested too deeply, or not UTF-8."""
    MODEL_TYPE = "model-not-a-string"
    MODEL_NAME = "bad-model-name"
    """A string that cannot be the name of a model and must not appear in a header."""


class BodyError(ValueError):
    """The body cannot be used for routing. The message contains no part of the body."""

    def __init__(self, kind: BodyErrorKind, message: str) -> None:
        self.kind = kind
        self.message = message
        super().__init__(message)


class Document(PromptFields):
    """The fields of a JSON body that routing may need, as they are written: views of the body."""

    # Raw, so that this module reports a wrong type of `model` and the pod one of `stream`. And so
    # that no field, whatever a client writes into it, becomes many objects.
    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"false")
    stream_options: msgspec.Raw = NOTHING
    input_file_id: msgspec.Raw = NOTHING
    store: msgspec.Raw = NOTHING
    lora_path: msgspec.Raw = NOTHING


class BodyFields(msgspec.Struct, frozen=True):
    """The parts of a body that routing needs."""

    model: str
    """Empty if the field is missing, null or empty."""
    stream: bool
    size: int
    """In bytes."""
    asks_usage: bool = False
    """Whether a stream is to state how many tokens the request took."""
    document: Document | None = None
    """``None``: the body is a form. It keeps the whole body in memory, so it must not be kept."""


class _StreamOptions(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw(b"false")


_decoder = msgspec.json.Decoder(Document)
_text = msgspec.json.Decoder(str)
_options = msgspec.json.Decoder(_StreamOptions)
_MAX_OPTIONS = 64 * 1024
"""Bytes of the options of a stream that are read, which is another pass over them."""
_USUAL_TYPE = "application/json"
_FORM = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
_TRUE = frozenset(("true", "1", "on", "t", "y", "yes"))
"""What the pod (pydantic) takes for true in a form."""


def is_json(content_type: str) -> bool:
    """Return whether a ``content-type`` header states that the body is JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def is_form(content_type: str) -> bool:
    """Return whether a ``content-type`` header states that the body is a form."""
    return content_type.lstrip(" \t")[: len(_FORM)].lower() == _FORM


def read_body(body: Message, content_type: str, *, special_numbers: bool = True) -> BodyFields:
    """Return the parts of a body that routing needs.

    Args:
        body: The complete body.
        content_type: The ``content-type`` header. ``multipart/form-data`` is read as a form, every
            other type as JSON.
        special_numbers: Whether ``NaN`` and infinities are allowed in JSON.

    Raises:
        BodyError: The body cannot be used for routing.
    """
    if content_type != _USUAL_TYPE and is_form(content_type):
        return _read_form(body, content_type)
    try:
        document = _decoder.decode(body)
        # The decoder searches for the end of a string that it skips, and does not validate it.
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if content_type.lower().startswith(_URLENCODED) and not body.lstrip().startswith(b"{"):
            raise _malformed(
                "The request body is a URL-encoded form. Send JSON, or multipart/form-data."
            ) from None
        document = _read_leniently(body, error, special_numbers=special_numbers)
    raw = bytes(document.model)
    model = _usual_model(raw) if len(raw) <= MAX_MODEL_LENGTH else _model(raw)
    if bytes(document.stream) != b"true":
        return BodyFields(model, False, len(body), False, document)
    options = document.stream_options
    asks_usage = 0 < len(options) <= _MAX_OPTIONS and _asks_usage(bytes(options))
    return BodyFields(model, True, len(body), asks_usage, document)


def _asks_usage(options: bytes) -> bool:
    """Return whether the options of a stream ask for the numbers of tokens."""
    try:
        return bytes(_options.decode(options).include_usage) == b"true"
    except (msgspec.DecodeError, RecursionError):
        return False  # The pod refuses them.


def is_whole(body: Message, content_type: str) -> bool:
    """Return whether a body that has arrived so far is complete: a form, or a JSON object.

    This is asked repeatedly about a long body. So a document that must be rewritten to be read is
    not known to be complete.
    """
    try:
        if is_form(content_type):
            read_fields(body, content_type, ())
        else:
            _decoder.decode(body)
    except (MultipartError, msgspec.DecodeError, RecursionError):
        return False
    return True


def _read_leniently(
    body: Message,
    error: msgspec.DecodeError | UnicodeDecodeError | RecursionError,
    *,
    special_numbers: bool,
) -> Document:
    """Read a body that may be valid for the pod's parser only.

    Args:
        body: The body.
        error: Why the strict parser refuses it.
        special_numbers: See ``read_body``.
    """
    try:
        found = rewritten(body)
    except LenientJsonError as why:
        raise _malformed(f"The request body is not valid JSON: {why}.") from None
    if found.text is body:
        raise _refused(error) from None
    if found.has_numbers and not special_numbers:
        raise _malformed("The request body contains NaN or Infinity, which JSON does not have.")
    try:
        return _decoder.decode(found.text)
    except (msgspec.DecodeError, RecursionError) as why:
        raise _refused(why) from None


def _refused(error: Exception) -> BodyError:
    """Return the error of a body that the parser refuses."""
    if isinstance(error, msgspec.ValidationError):
        return _malformed("The request body must be a JSON object.")
    if isinstance(error, RecursionError):
        return _malformed("The request body is nested too deeply.")
    # These messages name the offset of a byte and never repeat the body.
    return _malformed(f"The request body is not valid JSON: {error}.")


def _model(raw: bytes) -> str:
    if raw == b"null":
        return ""
    try:
        return checked_model(_text.decode(raw))
    except msgspec.ValidationError:
        raise BodyError(BodyErrorKind.MODEL_TYPE, "The field 'model' must be a string.") from None


_usual_model = lru_cache(maxsize=4096)(_model)
"""Most requests name a model that earlier requests named. Longer names are not cached, because they
would let clients use memory."""


def _read_form(body: Message, content_type: str) -> BodyFields:
    try:
        fields = read_fields(body, content_type, ("model", "stream"))
    except MultipartError as error:
        raise _malformed(f"The request body is not a valid form: {error}.") from None
    stream = fields.get("stream", "").lower() in _TRUE
    return BodyFields(checked_model(fields.get("model", "")), stream, len(body))


def checked_model(model: str) -> str:
    """Return the name of a model if it is valid: not too long, printable, and safe in a header.

    Raises:
        BodyError: The name is invalid.
    """
    if wrong := why_invalid(model):
        raise BodyError(BodyErrorKind.MODEL_NAME, f"The name of the model {wrong}.")
    return model


def _malformed(message: str) -> BodyError:
    return BodyError(BodyErrorKind.MALFORMED, message)
