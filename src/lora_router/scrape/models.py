"""Reads ``/v1/models``: which models a pod serves, and which of them are adapters."""

import msgspec

from lora_router.fleet.catalog import ServedModel


class ModelsError(ValueError):
    """The page is not a list of models. The message does not quote the page."""


class _Model(msgspec.Struct):
    id: str
    parent: str | None = None
    """The base model of an adapter (vLLM and SGLang)."""


class _Models(msgspec.Struct):
    data: list[_Model]


_decoder = msgspec.json.Decoder(_Models)


def read_models(body: bytes) -> tuple[ServedModel, ...]:
    """Return the models that the page lists.

    Raises:
        ModelsError: The page is not a list of models.
    """
    try:
        listed = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelsError(f"not a list of models: {error}") from None
    # A model without a parent, or with itself as its parent, is a base model.
    return tuple(
        ServedModel(model.id, model.parent if model.parent != model.id else None)
        for model in listed.data
        if model.id
    )
