"""Reads a prompt from the body of a request: names of its beginnings, and its length.

Nothing is tokenized, and the template of the chat is not known. So prompts are compared as the
bytes that clients write. Two bodies whose prompts begin with the same bytes get the same names for
that beginning, in all routers and after restarts: the name of a chunk is the XXH3 hash of its
bytes, with the name of the chunk before it as the seed. The names are not salted. XXH3 is no keyed
hash, so a salt would promise a secrecy that it cannot give, and the keyed hashes of the standard
library take longer than everything else here (220 KB: 130 µs and more). Names are told to peers
only, which see the prompts' traffic anyway.

*Order.* Fields are read in the order in which most chat templates render them: tools, then the
system prompt (a field of its own in Anthropic's and in the Responses API), then the messages. What
changes the whole prompt comes before all of these: ``cache_salt`` (vLLM shares nothing between
salts), the template and its arguments, the effort of reasoning, and IDs of a conversation that the
pod keeps. Fields that change nothing of the prompt, such as ``temperature``, are not read, and
neither is the order of fields in the body. A template that renders tools after the system prompt
shares a little more than is seen here.

*Chunks.* A chunk ends at a ``},``, which is where a message ends in the history of a chat, or
after some bytes without one. Only what precedes an end decides where it is. So a follow-up turn has
all names of the turn before it, up to the end of the last message. The chunks grow with the
distance from the start: their length stays below a 16th of it. So an end is known to 6 %, at no
length are there more than some hundreds of chunks, and what is kept of a prompt of 220 KB is
little more than that of one of 20 KB. What vLLM itself shares are whole blocks, of 16 tokens by
default.

*Images.* An image or a sound in a body is long in bytes, and short in tokens. It is one chunk, and
counts as ``MEDIA_TOKENS``.
"""

from msgspec import Raw
from xxhash import xxh3_64_intdigest

from lora_router.extproc.prompt_fields import CONTEXT, NOTHING, PARTS, PromptFields
from lora_router.extproc.token_lengths import TokenLengths
from lora_router.fleet.prompt import Prompt

LEAST_CHUNK = 128
"""Bytes of the shortest chunk. Two of vLLM's blocks: less is not worth a detour."""
USUAL_CHUNK = 512
"""Bytes of a chunk of plain text, near the start of a prompt."""
MAX_READ_BYTES = 4 * 1024 * 1024
"""Bytes of one field that are read. No model takes a longer text, and a longer image only ends the
names early."""
MEDIA_TOKENS = 1000
"""What an image or a sound counts for: models make some hundreds to some thousands of tokens of
one."""

_FAR = 32 * LEAST_CHUNK
"""From this distance from the start on, chunks grow: one is at most a 16th of the distance, and at
least a 32nd."""
_LARGE = 16 * USUAL_CHUNK
"""From this distance on, chunks may be longer than the usual ones."""
_SPACE, _BACKSLASH = b" \\"
_WHITE = b" \t\r\n"
_MEDIA_BYTES = 4 * MEDIA_TOKENS
"""Added to the distance from the start for an image."""
_BEFORE_MEDIA = 48
"""How far before a string the key is that says that it is an image or a sound."""

_NO_PROMPT = frozenset(
    (
        "batch",
        "classify",
        "count_tokens",
        "decisions",
        "derender",
        "detokenize",
        "edits",
        "embed",
        "embeddings",
        "encode",
        "generations",
        "generative_scoring",
        "input_tokens",
        "moderations",
        "pooling",
        "render",
        "rerank",
        "score",
        "speech",
        "tokenize",
        "transcriptions",
        "translations",
        "variations",
        "videos",
    )
)
"""How paths end whose requests continue no prompt, so that no pod keeps anything of use to others:
they make vectors, scores or images, ask for many prompts at once, or only count tokens."""

_TAGS = tuple((name, xxh3_64_intdigest(name.encode())) for name in PARTS)
"""The fields of a prompt, and what tells their names apart."""


def read_prompt(
    fields: PromptFields | None, path: str, model: str, lengths: TokenLengths
) -> Prompt | None:
    """Return the prompt of a request.

    Args:
        fields: The fields of the body; ``None``: it is a form, or there is none.
        path: The path as the pod sees it; empty: unknown.
        model: The model that the body names.
        lengths: How long tokens are.

    Returns:
        ``None``: the body has no prompt that a pod would keep.
    """
    if fields is None or path.rpartition("/")[2] in _NO_PROMPT:
        return None
    name = 0
    for field in CONTEXT:
        raw = getattr(fields, field)
        if raw is not NOTHING:
            name = xxh3_64_intdigest(b"%b:%b" % (field.encode(), bytes(raw)), name)
    chunks: list[int] = []
    ends: list[int] = []
    size = 0
    for field, tag in _TAGS:
        raw = getattr(fields, field)
        if raw is not NOTHING:
            name, size = _read_part(raw, name ^ tag, size, chunks, ends)
    if not size:
        return None
    tokens = 1.0 / lengths.of(model)
    return Prompt(size * tokens, chunks, [end * tokens for end in ends], size)


def _read_part(
    raw: Raw, name: int, distance: int, chunks: list[int], ends: list[int]
) -> tuple[int, int]:
    """Append the chunks of a field, and where they end.

    Args:
        raw: The field's value.
        name: What names the beginning before it, and the field.
        distance: How long that beginning is, in bytes.
        chunks: The names so far.
        ends: Where they end, likewise.

    Returns:
        The same two of the beginning that ends with the field.
    """
    text, rest = bytes(raw), b""
    if len(text) > MAX_READ_BYTES:
        text, rest = text[:MAX_READ_BYTES], text[MAX_READ_BYTES:]
    end = _end_of_content(text)
    start, brace, find, hashed = 0, -1, text.find, xxh3_64_intdigest
    ended_by_message = False
    least, most = max(LEAST_CHUNK, distance >> 5), max(USUAL_CHUNK, distance >> 4)
    while start < end:
        low, stop = start + least, start + most
        if low > end:  # It is too short to end here if more followed.
            break
        # The search for one byte is many times faster, and finds that there are no two.
        if not ended_by_message and brace < low - 1:
            brace = find(b"}", low - 1, end)
            if brace < 0:
                brace = end
        if ended_by_message or brace < stop:
            message_end = find(b"},", low - 1, stop + 1)
            ended_by_message = message_end >= 0
            if ended_by_message:
                stop = message_end + 1
        # Calls are counted, since this is done for each chunk.
        stop = end if stop > end else stop  # noqa: FURB136
        chunk = text[start:stop]
        counted = stop - start
        if _SPACE not in chunk and _BACKSLASH not in chunk and chunk.isascii():
            after = _end_of_media(text, start - most, start, end)
            if after > start:
                stop, counted = after, _MEDIA_BYTES
                chunk = text[start:stop]
        name = hashed(chunk, name)
        distance += counted
        chunks.append(name)
        ends.append(distance)
        start = stop
        if distance > _FAR:
            least = distance >> 5
            most = distance >> 4 if distance > _LARGE else USUAL_CHUNK
    # What no chunk has still tells the names of what follows apart.
    name = hashed(text[start:end] + rest, name)
    return name, distance + end - start + len(rest)


def _end_of_content(text: bytes) -> int:
    """Return where a value ends to which more can be added: before its last bracket or quote."""
    if text.endswith(b"]"):
        return len(text[:-1].rstrip(_WHITE)) if text[-2] in _WHITE else len(text) - 1
    return len(text) - text.endswith(b'"')


def _end_of_media(text: bytes, least: int, start: int, end: int) -> int:
    """Return where an image or a sound ends in which a chunk starts; 0: there is none.

    It is a string in Base64 that begins with ``data:``, or has the key ``data`` (Anthropic's API,
    and sounds). It begins in the chunk before, at ``least`` or later. At its closing quote nothing
    of it is left. So a chunk of the usual length follows, and at most every other one is short.
    """
    if text.startswith(b'"', start):
        return 0
    quote = text.rfind(b'"', max(0, least), start)
    if quote < 0:
        return 0
    if not text.startswith(b"data:", quote + 1):
        key = text[max(0, quote - _BEFORE_MEDIA) : quote]
        if not key.rstrip(_WHITE + b":").endswith(b'"data"'):
            return 0
    closing = text.find(b'"', start, end)
    return closing if closing >= 0 else end
