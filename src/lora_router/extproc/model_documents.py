"""The documents that answer ``/v1/models``: OpenAI's and Anthropic's shapes, whole or in pages.

``created`` is the epoch for every model. A pod states the time of its answer, which is different in
every answer and on every pod. No router knows when a model was made, and a value that changes with
each router or restart would be worse than none.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Sequence
from urllib.parse import parse_qs

import msgspec

from lora_router.fleet.model_list import AT_ONCE, ModelList

OWNER = "lora-router"
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
"""Length of a document: about 40,000 models. A longer list is cut, says ``has_more``, and goes on
with ``after``."""
MOST_IN_PAGE = 1000
"""Anthropic's limit. OpenAI has none for models."""
_USUAL_IN_PAGE = 20
"""Anthropic's default."""
_MAX_QUERY_FIELDS = 64
_EPOCH = "1970-01-01T00:00:00Z"
_encoder = msgspec.json.Encoder()


class QueryError(ValueError):
    """A parameter of the query is invalid. The message is for the client."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class PageQuery(msgspec.Struct, frozen=True):
    """Which part of a list a client asks for."""

    limit: int | None = None
    after: str = ""
    """The page begins after this name."""
    before: str = ""
    """The page ends before this name."""

    @property
    def is_whole(self) -> bool:
        """Whether the query asks for no page."""
        return self.limit is None and not self.after and not self.before


WHOLE = PageQuery()


class _OpenAiModel(msgspec.Struct):
    id: str
    parent: str | None
    object: str = "model"
    created: int = 0
    owned_by: str = OWNER


class _OpenAiPage(msgspec.Struct):
    data: list[_OpenAiModel]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


class _AnthropicModel(msgspec.Struct):
    id: str
    display_name: str
    type: str = "model"
    created_at: str = _EPOCH


class _AnthropicPage(msgspec.Struct):
    data: list[_AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: bool


def read_page_query(query: str, *, anthropic: bool) -> PageQuery:
    """Return what a query asks for: the parameters of Anthropic's list, or of OpenAI's lists.

    Raises:
        QueryError: A parameter is invalid.
    """
    if not query:
        return WHOLE
    try:
        fields = parse_qs(query, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:
        raise QueryError("query", "The query has too many parameters.") from None
    after, before = ("after_id", "before_id") if anthropic else ("after", "before")
    limit = None
    if "limit" in fields:
        text = fields["limit"][-1]
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
        if not 1 <= limit <= MOST_IN_PAGE:
            raise QueryError("limit", f"The limit must be a number from 1 to {MOST_IN_PAGE}.")
    found = PageQuery(limit, fields.get(after, [""])[-1], fields.get(before, [""])[-1])
    if found.after and found.before:
        raise QueryError(before, f"Set {after} or {before}, not both.")
    return found


def openai_model(name: str, base: str | None) -> bytes:
    """Return the document of one model."""
    return _encoder.encode(_OpenAiModel(name, base))


def anthropic_model(name: str) -> bytes:
    """Return the document of one model."""
    return _encoder.encode(_AnthropicModel(name, name))


def openai_list_in_steps(listed: ModelList) -> Generator[None, None, bytes]:
    """Return the whole list, in steps. A list that is too long is cut."""
    parts: list[bytes] = []
    size = 0
    for start in range(0, len(listed.names), AT_ONCE):
        stop = start + AT_ONCE
        entries = list(map(_OpenAiModel, listed.names[start:stop], listed.bases[start:stop]))
        part = _encoder.encode(entries)[1:-1]
        if size + len(part) > MAX_DOCUMENT_BYTES:
            ids = _encoder.encode({"first_id": listed.names[0], "last_id": listed.names[start - 1]})
            end = b'],"has_more":true,' + ids[1:]
            break
        parts.append(part)
        size += len(part)
        yield
    else:
        end = b"]}"
    return b'{"object":"list","data":[' + b",".join(parts) + end


def openai_page(listed: ModelList, query: PageQuery) -> bytes:
    """Return a part of the list, in the shape of OpenAI's other lists."""
    start, stop, more = _bounds(listed, query, MOST_IN_PAGE)
    names = listed.names[start:stop]
    entries = list(map(_OpenAiModel, names, listed.bases[start:stop]))
    return _encoder.encode(_OpenAiPage(entries, *_ends(names), more))


def anthropic_page(listed: ModelList, query: PageQuery) -> bytes:
    """Return a part of the list in Anthropic's shape."""
    start, stop, more = _bounds(listed, query, _USUAL_IN_PAGE)
    names = listed.names[start:stop]
    entries = [_AnthropicModel(name, name) for name in names]
    return _encoder.encode(_AnthropicPage(entries, *_ends(names), more))


def _bounds(listed: ModelList, query: PageQuery, usual: int) -> tuple[int, int, bool]:
    """Return where a page begins and ends, and whether there is more in its direction."""
    names, limit = listed.names, query.limit or usual
    if query.before:
        stop = bisect_left(names, query.before)
        start = max(0, stop - limit)
        return start, stop, start > 0
    start = bisect_right(names, query.after) if query.after else 0
    stop = min(start + limit, len(names))
    return start, stop, stop < len(names)


def _ends(names: Sequence[str]) -> tuple[str | None, str | None]:
    return (names[0], names[-1]) if names else (None, None)
