"""Reads how many tokens a request took, as the answer to it states, piece by piece.

An answer is a JSON document, or a stream of events of which some are JSON documents. The counts are
in the object ``usage`` of the document. In streams, it may be in the object ``response``
(OpenAI's Responses API), ``message`` (the first event of Anthropic's API) or ``delta`` (Cohere's),
which is the first object in an event.
The last number that an answer states of each kind counts: servers that state one more often count
up. Of an answer, at most a few kilobytes are kept.
"""

import re
from typing import Any

from msgspec import Struct

from lora_router.extproc.json_usage import KEY, JsonUsage, may_have_usage

MAX_TOKENS = 1_000_000_000
"""Envoy's rate limits take no larger number. A larger one is not believed."""

_IN_AN_OBJECT = re.compile(
    rb'data: ?\{\s*(?:"[a-z_]+"\s*:\s*(?:"[^"\\]*"|[0-9]+|null)\s*,\s*){0,4}'
    rb'"(?:response|message|delta)"\s*:\s*\{'
)
"""The beginning of an event whose first object may have the counts."""
_DATA = b"data:"


class Usage(Struct, frozen=True, gc=False):
    """Numbers of tokens. ``None``: the answer does not state it."""

    prompt: int | None = None
    """With those from the cache."""
    completion: int | None = None
    cached: int | None = None
    """Of the prompt: those that the server had in its cache."""

    @property
    def is_known(self) -> bool:
        """Whether any number is known that the answer is billed by."""
        return self.prompt is not None or self.completion is not None

    def followed_by(self, later: "Usage") -> "Usage":
        """Return what is known after a later object."""
        return Usage(
            self.prompt if later.prompt is None else later.prompt,
            self.completion if later.completion is None else later.completion,
            self.cached if later.cached is None else later.cached,
        )


NO_USAGE = Usage()


def usage_of(stated: Any) -> Usage:
    """Return the numbers in an object ``usage``, whichever API it has."""
    if not isinstance(stated, dict):
        return NO_USAGE
    tokens = stated.get("tokens")  # Cohere's API.
    if isinstance(tokens, dict):
        stated = {**tokens, "cached_tokens": stated.get("cached_tokens")}
    prompt = _number(stated, "prompt_tokens")
    completion = _number(stated, "completion_tokens")
    cached = _number(stated, "cached_tokens")
    for field in ("prompt_tokens_details", "input_tokens_details"):
        details = stated.get(field)
        if cached is None and isinstance(details, dict):
            cached = _number(details, "cached_tokens")
    if completion is None:
        completion = _number(stated, "output_tokens")
    if prompt is None:
        prompt = _number(stated, "input_tokens")
        # Anthropic's API does not count what the cache is read or written for as input.
        read = _number(stated, "cache_read_input_tokens")
        written = _number(stated, "cache_creation_input_tokens")
        if prompt is not None:
            prompt = min(prompt + (read or 0) + (written or 0), MAX_TOKENS)
        cached = read if cached is None else cached
    return Usage(prompt, completion, cached)


def _number(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    is_count = type(value) is int and 0 <= value <= MAX_TOKENS
    return value if is_count else None


class UsageSearch:
    """What one answer states so far."""

    __slots__ = ("_document", "_events", "began", "usage")

    def __init__(self, *, event_stream: bool) -> None:
        """Create it before the first piece.

        Args:
            event_stream: Whether the answer is a stream of events.
        """
        self.began = False
        """Whether a piece of the answer arrived."""
        self.usage = NO_USAGE
        self._events = event_stream
        self._document: JsonUsage | None = None
        """The document, or the line of an event, of which a part has arrived."""

    @property
    def kept_bytes(self) -> int:
        """Bytes of the answer that are kept."""
        return 0 if self._document is None else self._document.kept_bytes

    def add(self, piece: bytes | bytearray, *, ends: bool) -> bool:
        """Read the next piece.

        Args:
            piece: The piece. It may be cut anywhere.
            ends: Whether it is the last one.

        Returns:
            Whether ``usage`` changed.
        """
        self.began = True
        before = self.usage
        if self._events:
            self._add_lines(piece)
        else:
            self._add_part(piece)
        if ends:
            self.end()
        return self.usage is not before

    def end(self) -> bool:
        """Take in that the answer is complete. Return whether ``usage`` changed."""
        document, self._document = self._document, None
        if document is None:
            return False
        return self._take(document)

    def _add_part(self, part: bytes | bytearray) -> None:
        if self._document is None:
            self._document = JsonUsage()
        self._document.add(part)

    def _add_lines(self, piece: bytes | bytearray) -> None:
        if self._document is None and KEY not in piece:
            rest = piece[piece.rfind(b"\n") + 1 :]
        else:
            *lines, rest = piece.split(b"\n")
            for line in lines:
                if self._document is not None:
                    self._document.add(line)
                    self.end()
                elif may_have_usage(line):
                    self._add_part(line)
                    self.end()
        if rest:
            self._add_part(rest)

    def _take(self, document: JsonUsage) -> bool:
        document.end()
        if self._events and not document.head.startswith(_DATA):
            return False
        found = usage_of(document.usage(1))
        if self._events and not found.is_known and _IN_AN_OBJECT.match(document.head) is not None:
            found = usage_of(document.usage(2))
        later = self.usage.followed_by(found)
        if later == self.usage:
            return False
        self.usage = later
        return True
