"""Fields of a JSON body that only one engine reads."""

import re

import msgspec

from lora_router.extproc.body import BodyError, Document, checked_model

_SPACE = rb"[ \t\n\r]*"
_FIRST_NAME = re.compile(
    rb"\[" + _SPACE + rb'(?:(?:null|"")' + _SPACE + rb"," + _SPACE + rb")*+"
    rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")',
    re.DOTALL,
)
"""The beginning of a list, up to its first name."""
_MAX_READ_BYTES = 64 * 1024
"""How much of a list is read, which may have a name for each of many prompts."""

_text = msgspec.json.Decoder(str)


def read_lora_path(document: Document | None) -> str:
    """Return the adapter that SGLang's field ``lora_path`` names; empty: none.

    A list has an adapter for each prompt. The first one decides.

    Args:
        document: The fields of the body; ``None``: it is a form.
    """
    if document is None or not document.lora_path:
        return ""
    value = bytes(memoryview(document.lora_path)[:_MAX_READ_BYTES])
    if value.startswith(b"["):
        first = _FIRST_NAME.match(value)
        value = b"" if first is None else first[1]
    try:
        return checked_model(_text.decode(value))
    except (msgspec.DecodeError, BodyError):
        return ""  # The pod reports what is wrong with it.
