"""Fields of a JSON body that only one engine reads."""

import msgspec

from lora_router.extproc.body import BodyError, checked_model
from lora_router.extproc.events import Message


class _Fields(msgspec.Struct):
    lora_path: str | list[str | None] | None = None


_decoder = msgspec.json.Decoder(_Fields)


def read_lora_path(body: Message) -> str:
    """Return the adapter that SGLang's field ``lora_path`` names; empty: none.

    A list has an adapter for each prompt. The first one decides.
    """
    # This search costs less than a second look at each body.
    if b'"lora_path"' not in body:
        return ""
    try:
        found = _decoder.decode(body).lora_path
        if isinstance(found, list):
            found = next(filter(None, found), None)
        return checked_model(found or "")
    except (msgspec.DecodeError, RecursionError, BodyError):
        return ""  # The pod reports what is wrong with it.
