"""Reads ``/v1/models``: which models a pod serves, and which of them are adapters.

vLLM writes 400 bytes for each adapter, with a new random id and a new time in every response. The
bytes of equal lists therefore differ, and every response has to be decoded. A response for ten
thousand adapters is decoded in pieces of whole models, because decoding it at once would delay
requests by tens of milliseconds.
"""

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

import msgspec

from lora_router.fleet.catalog import Catalog, CatalogBuilder
from lora_router.fleet.reading_bounds import MAX_MODELS, MAX_NAME_LENGTH
from lora_router.steps import Steps, all_at_once

PIECE_BYTES = 16 * 1024
"""Length of a piece."""
LONGEST_PIECE_BYTES = 4 * PIECE_BYTES
"""Length of a piece if no model ends earlier, and so the longest model of a long list."""
_TRIES = 8
"""How many ends are tried for a piece."""
_Decoded = TypeVar("_Decoded")

_LIST = re.compile(
    rb'\s{0,8}\{\s{0,8}(?:"object"\s{0,8}:\s{0,8}"list"\s{0,8},\s{0,8})?'
    rb'"data"\s{0,8}:\s{0,8}\['
)
_BETWEEN_MODELS = re.compile(rb"\}\s{0,8},\s{0,8}\{")


class Roots(Protocol):
    """Wants to know from where adapters were loaded."""

    def __contains__(self, name: str) -> bool:
        """Return whether it wants to know it of an adapter."""

    def found(self, name: str, root: str) -> None:
        """Take in from where an adapter was loaded."""


class ModelsError(ValueError):
    """The page is not a list of models. The message does not quote the page."""


class TooManyModelsError(ModelsError):
    """The list is too long."""


class _Model(msgspec.Struct, gc=False):
    id: str
    parent: str | None = None
    """The base model of an adapter (vLLM and SGLang)."""
    root: msgspec.Raw = msgspec.Raw(b"null")
    """From where an adapter was loaded, as JSON (vLLM and SGLang)."""


class _Page(msgspec.Struct):
    data: list[_Model]


_page_decoder = msgspec.json.Decoder(_Page)
_piece_decoder = msgspec.json.Decoder(list[_Model])


FIRST_IS_BASE = frozenset(("lmdeploy",))
"""Engines that list adapters without a ``parent``, after the base model. From ``get_model_list`` in
``lmdeploy/serve/openai/api_server.py``."""


def read_models(body: bytes, engine: str | None = None) -> Catalog:
    """Return the models that the page lists.

    Args:
        body: The page.
        engine: The pod's engine, if a label names it.

    Raises:
        ModelsError: The page is not a list of models, or it is too long.
    """
    return all_at_once(models_in_steps(body, engine))


def models_in_steps(
    body: bytes, engine: str | None = None, roots: Roots | None = None
) -> Steps[Catalog]:
    """Read the page in steps.

    Args:
        body: The page.
        engine: The pod's engine, if a label names it.
        roots: Is told from where adapters were loaded.

    Raises:
        ModelsError: The page is not a list of models, or it is too long.
    """
    listed = _Listed(first_is_base=engine in FIRST_IS_BASE, roots=roots)
    if len(body) <= PIECE_BYTES:
        listed.add(_decoded(_page_decoder, body).data)
        return listed.builder.catalog()
    head = _LIST.match(body)
    if head is None:
        if len(body) > LONGEST_PIECE_BYTES:
            raise ModelsError("not a list of models: a long list must begin with its data")
        listed.add(_decoded(_page_decoder, body).data)
        return listed.builder.catalog()
    start = head.end()
    while (end := _end_of_piece(body, start)) is not None:
        piece, start = end
        listed.add(piece)
        yield
    listed.add(_decoded(_page_decoder, b'{"data":[' + body[start:]).data)
    return listed.builder.catalog()


def _end_of_piece(body: bytes, start: int) -> tuple[list[_Model], int] | None:
    """Return some whole models of a list, and where the next one begins.

    A piece ends where ``},{`` stands. Where that is inside a model, in a text or in a list, the
    piece is not valid, and the next such place is tried. A piece that is valid consists of whole
    models, because it begins with one.

    Returns:
        ``None`` if the rest of the page is short.
    """
    latest = start + LONGEST_PIECE_BYTES
    search_from = start + PIECE_BYTES
    error = ModelsError(f"not a list of models: one is longer than {LONGEST_PIECE_BYTES} bytes")
    for _ in range(_TRIES):
        between = _BETWEEN_MODELS.search(body, search_from, latest)
        if between is None:
            break
        try:
            piece = _decoded(_piece_decoder, b"[" + body[start : between.start() + 1] + b"]")
        except ModelsError as failed:
            error = failed
            search_from = between.end() - 1
        else:
            return piece, between.end() - 1
    if len(body) <= latest:
        return None
    raise error


class _Listed:
    """The models of the pieces that were read."""

    __slots__ = ("_base", "_first_is_base", "_roots", "builder")

    def __init__(self, *, first_is_base: bool, roots: Roots | None) -> None:
        self._roots = roots
        self.builder = CatalogBuilder()
        self._first_is_base = first_is_base
        self._base: str | None = None

    def add(self, models: Iterable[_Model]) -> None:
        builder = self.builder
        for model in models:
            name, parent = model.id, model.parent
            if not 0 < len(name) <= MAX_NAME_LENGTH:
                continue
            if self._first_is_base and parent is None:
                self._base = parent = self._base or name
            # A model without a parent, or with itself as its parent, is a base model.
            if parent is None or parent == name:
                builder.add(name, None)
            elif len(parent) <= MAX_NAME_LENGTH:
                builder.add(name, parent)
                if self._roots is not None and name in self._roots:
                    _tell_root(self._roots, model)
        if len(builder) > MAX_MODELS:
            raise TooManyModelsError(f"the list has more than {MAX_MODELS} models")


def _tell_root(roots: Roots, model: _Model) -> None:
    try:
        root = msgspec.json.decode(model.root)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    if isinstance(root, str):
        roots.found(model.id, root)


def _decoded(decoder: msgspec.json.Decoder[_Decoded], data: bytes) -> _Decoded:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelsError(f"not a list of models: {error}") from None
