"""Mooncake's traces: one JSON object a line.

Source: kvcache-ai/Mooncake, ``FAST25-release/traces``; Qin et al., FAST '25. ``timestamp`` is in
milliseconds, ``input_length`` and ``output_length`` in tokens. ``hash_ids`` name blocks of 512
prompt tokens, the last one of which may be shorter: prompts with the same first ids begin with the
same blocks. A session is a chain of requests that share more than their first block, which is
everybody's system prompt. An id stands for all that comes before it, so requests share a second
block if and only if its id is the same.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from lora_router.simulator.recorded.recording import (
    LONGEST_LINE,
    RecordedRequest,
    TraceError,
    finite_number,
    refusal,
    whole_number,
)

NAME = "mooncake"
KEYS = ("timestamp", "input_length", "output_length", "hash_ids")
BLOCK_TOKENS = 512
_LARGEST_ID = 1 << 62


def read(path: Path, lines: Iterable[str]) -> Iterator[RecordedRequest]:
    """Yield the requests.

    Raises:
        TraceError: A line is not such a request.
    """
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if len(line) > LONGEST_LINE:
            raise TraceError(f"{where}: longer than {LONGEST_LINE:,} characters")
        if line.isspace():
            continue
        try:
            given = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise TraceError(f"{where}: not JSON: {error}") from None
        if not isinstance(given, dict):
            raise TraceError(f"{where}: must be an object with the keys {', '.join(KEYS)}")
        for key in KEYS:
            if key not in given:
                raise TraceError(f"{where}: {key}: is required")
        tokens = whole_number(where, "input_length", given["input_length"], least=1)
        ids = _ids(where, given["hash_ids"], tokens)
        yield RecordedRequest(
            finite_number(where, "timestamp", given["timestamp"]) / 1000,
            tokens,
            whole_number(where, "output_length", given["output_length"], least=1),
            session=ids[1] if len(ids) > 1 else None,
            blocks=ids,
            block_tokens=BLOCK_TOKENS,
        )


def _ids(where: str, value: object, tokens: int) -> tuple[int, ...]:
    blocks = -(-tokens // BLOCK_TOKENS)
    allowed = f"a list of {blocks} ids (blocks of {BLOCK_TOKENS} tokens in input_length)"
    if not isinstance(value, list) or len(value) != blocks:
        shown = f"{len(value)} of them" if isinstance(value, list) else value
        raise refusal(where, "hash_ids", shown, allowed)
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= _LARGEST_ID:
            raise refusal(where, "hash_ids", item, "whole numbers of 0 or more")
    return tuple(value)
