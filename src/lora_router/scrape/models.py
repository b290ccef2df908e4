"""Reading ``/v1/models``: which models a pod serves, and which of them are adapters of which."""

import msgspec

from lora_router.fleet.catalog import ServedModel


class ModelsError(ValueError):
    """It is no list of models; the message says why and repeats nothing of it."""


class _Model(msgspec.Struct):
    id: str
    parent: str | None = None
    """An adapter's base model (vLLM; SGLang too)."""


class _Models(msgspec.Struct):
    data: list[_Model]


_decoder = msgspec.json.Decoder(_Models)


def read_models(body: bytes) -> tuple[ServedModel, ...]:
    """Read the list.

    Raises:
        ModelsError: It is none.
    """
    try:
        listed = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelsError(f"not a list of models: {error}") from None
    # An adapter that names itself or nothing as its parent is a model of its own.
    return tuple(
        ServedModel(model.id, model.parent if model.parent != model.id else None)
        for model in listed.data
        if model.id
    )
