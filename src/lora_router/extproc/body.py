"""Reads the name of the model, ``stream`` and the size from a request body.

A JSON body is validated completely, because the router should refuse an invalid one before it
reaches a pod. Only the two fields are decoded, and nothing is copied. Where the fields of the
prompt are is noted, for algorithms that ask for it (``prompt_reading``). The part before the name
of the model cannot be skipped: the end of every string before it must be found to know that the
name is not inside a string. Where JSON parsers differ, this one agrees with the pod, which uses
Python's ``json``: the last of two equal keys counts, and a byte order mark is skipped (allowed by
RFC 8259, section 8.1). A body that msgspec refuses is read a second time, as leniently as the pod
reads it (``lenient_json``).
"""

from enum import Enum
from functools import lru_cache

import msgspec

from lora_router.extproc.lenient_json import (
    LenientJsonError,
    as_utf8,
    without_special_numbers,
)
from lora_router.extproc.multipart import MultipartError, read_fields
from lora_router.extproc.prompt_fields import PromptFields

MAX_MODEL_LENGTH = 512
"""In characters. Model names are paths or repository names; this is twice the longest of them."""


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


class BodyFields(msgspec.Struct, frozen=True):
    """The parts of a body that routing needs."""

    model: str
    """Empty if the field is missing, null or empty."""
    stream: bool
    size: int
    """In bytes."""
    asks_usage: bool = False
    """Whether a stream is to state how many tokens the request took."""
    prompt: PromptFields | None = None
    """Where the prompt is; ``None``: the body is a form."""


class _Document(PromptFields):
    # Raw, so that this module reports a wrong type of `model` and the pod one of `stream`.
    model: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"false")
    stream_options: msgspec.Raw = msgspec.Raw(b"")


class _StreamOptions(msgspec.Struct):
    include_usage: msgspec.Raw = msgspec.Raw(b"false")


_decoder = msgspec.json.Decoder(_Document)
_text = msgspec.json.Decoder(str)
_options = msgspec.json.Decoder(_StreamOptions)
_USUAL_TYPE = "application/json"
_FORM = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
_TRUE = frozenset(("true", "1", "on", "t", "y", "yes"))
"""What the pod (pydantic) takes for true in a form."""


def is_json(content_type: str) -> bool:
    """Return whether a ``content-type`` header states that the body is JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def read_body(
    body: bytes | bytearray, content_type: str, *, special_numbers: bool = True
) -> BodyFields:
    """Return the parts of a body that routing needs.

    Args:
        body: The complete body.
        content_type: The ``content-type`` header. ``multipart/form-data`` is read as a form, every
            other type as JSON.
        special_numbers: Whether ``NaN`` and infinities are allowed in JSON.

    Raises:
        BodyError: The body cannot be used for routing.
    """
    if content_type != _USUAL_TYPE and content_type.lstrip(" \t")[:19].lower() == _FORM:
        return _read_form(body, content_type)
    try:
        document = _decoder.decode(body)
        # The decoder searches for the end of a string that it skips, and does not validate it.
        if not body.isascii():
            body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if content_type.lower().startswith(_URLENCODED) and not body.lstrip().startswith(b"{"):
            raise _malformed(
                "The request body is a URL-encoded form. Send JSON, or multipart/form-data."
            ) from None
        document = _read_leniently(body, special_numbers=special_numbers)
    raw = bytes(document.model)
    model = _usual_model(raw) if len(raw) <= MAX_MODEL_LENGTH else _model(raw)
    if bytes(document.stream) != b"true":
        return BodyFields(model, False, len(body), False, document)
    options = document.stream_options
    asks_usage = bool(options) and _asks_usage(bytes(options))
    return BodyFields(model, True, len(body), asks_usage, document)


def _asks_usage(options: bytes) -> bool:
    """Return whether the options of a stream ask for the numbers of tokens."""
    try:
        return bytes(_options.decode(options).include_usage) == b"true"
    except (msgspec.DecodeError, RecursionError):
        return False  # The pod refuses them.


def _decode(body: bytes | bytearray) -> _Document:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError:
        raise _malformed("The request body must be a JSON object.") from None
    except RecursionError:
        raise _malformed("The request body is nested too deeply.") from None


def _read_leniently(body: bytes | bytearray, *, special_numbers: bool) -> _Document:
    """Read a body that may be valid for the pod's parser only."""
    try:
        plain = as_utf8(body)
        try:
            return _decode(plain)
        except msgspec.DecodeError as error:
            # These messages name the offset of a byte and never repeat the body.
            reason = f"The request body is not valid JSON: {error}."
        rewritten = without_special_numbers(plain)
    except LenientJsonError as error:
        raise _malformed(f"The request body is not valid JSON: {error}.") from None
    if rewritten is None:
        raise _malformed(reason)
    if not special_numbers:
        raise _malformed("The request body contains NaN or Infinity, which JSON does not have.")
    try:
        return _decode(rewritten)
    except msgspec.DecodeError as error:
        raise _malformed(f"The request body is not valid JSON: {error}.") from None


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


def _read_form(body: bytes | bytearray, content_type: str) -> BodyFields:
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
    if len(model) > MAX_MODEL_LENGTH:
        raise _bad_name(f"is longer than {MAX_MODEL_LENGTH} characters")
    if not model.isprintable():
        # Control characters, line ends, lone surrogates, invisible characters.
        raise _bad_name("contains characters that are not printable")
    if model != model.strip():
        # Leading and trailing spaces are lost in a header.
        raise _bad_name("begins or ends with a space")
    return model


def _malformed(message: str) -> BodyError:
    return BodyError(BodyErrorKind.MALFORMED, message)


def _bad_name(what: str) -> BodyError:
    return BodyError(BodyErrorKind.MODEL_NAME, f"The name of the model {what}.")
