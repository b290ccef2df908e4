"""Fields of a JSON body that only one engine reads."""

import msgspec

from lora_router.extproc.body import BodyError, checked_model
from lora_router.extproc.events import Message
from lora_router.extproc.lenient_json import LenientJsonError, decode_leniently


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
        found = decode_leniently(_decoder, body).lora_path
        if isinstance(found, list):
            found = next(filter(None, found), None)
        return checked_model(found or "")
    except (msgspec.DecodeError, LenientJsonError, RecursionError, BodyError):
        return ""  # The pod reports what is wrong with it.
