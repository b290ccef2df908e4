"""The names of a prompt's beginnings, and its length, as read from the body of a request."""

import base64
import json
import math
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from xxhash import xxh3_64_intdigest

from lora_router.extproc import prompt_reading
from lora_router.extproc.body import BodyError, read_body
from lora_router.extproc.prompt_reading import (
    LEAST_CHUNK,
    MAX_READ_BYTES,
    MEDIA_TOKENS,
    USUAL_CHUNK,
    read_prompt,
)
from lora_router.extproc.token_lengths import TokenLengths
from lora_router.fleet.prompt import Prompt
from tests.examples import examples

CHAT = "/v1/chat/completions"
PROSE = "The clerk counted the columns once more, and wrote down what was left. "


def read(body: bytes | dict[str, Any], path: str = CHAT) -> Prompt | None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_prompt(read_body(data, "application/json").document, path, "m", TokenLengths())


def prompt_of(body: bytes | dict[str, Any], path: str = CHAT) -> Prompt:
    prompt = read(body, path)
    assert prompt is not None
    return prompt


def say(*texts: str) -> list[dict[str, str]]:
    """A chat of a system prompt and turns."""
    roles = ["system", *("user", "assistant") * len(texts)]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def shared(one: Prompt, other: Prompt) -> int:
    """Return how many names at the beginning are the same."""
    count = 0
    for mine, theirs in zip(one.chunks, other.chunks, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


TURNS = [PROSE * 5, PROSE * 3, PROSE * 8, PROSE * 4, PROSE * 2]


def test_a_follow_up_turn_has_all_names_of_the_turn_before() -> None:
    first = prompt_of({"messages": say(*TURNS[:2])})
    second = prompt_of({"messages": say(*TURNS[:4])})

    assert len(first.chunks) >= 2
    assert shared(first, second) == len(first.chunks)


def test_the_names_reach_to_the_end_of_the_last_message() -> None:
    body = {"messages": say(*TURNS[:2])}

    assert prompt_of(body).ends[-1] * 4 == len(json.dumps(body["messages"])) - 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"model": "m"}, {}),
        ({}, {"model": "m", "temperature": 0.5}),
        ({"stream": True, "n": 1}, {"model": "m", "max_tokens": 5, "user": "u"}),
    ],
)
def test_other_fields_and_their_order_change_no_name(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    messages = {"messages": say(*TURNS)}

    assert prompt_of({**before, **messages, **after}) == prompt_of(messages)


def test_white_space_around_the_last_message_changes_no_name() -> None:
    messages = json.dumps(say(*TURNS)).encode()

    assert prompt_of(b'{"messages":%b }' % messages).chunks == (
        prompt_of(b'{ "messages" : %b\n  ]}' % messages[:-1]).chunks
    )


def test_white_space_at_the_end_of_a_text_counts() -> None:
    one, other = prompt_of({"prompt": "x" * 511}), prompt_of({"prompt": "x" * 510 + " "})

    assert one.size == other.size
    assert shared(one, other) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cache_salt", "tenant-a"),
        ("chat_template", "{{ messages }}"),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("reasoning_effort", "high"),
        ("tool_choice", "none"),
        ("documents", [{"title": "t", "text": "x"}]),
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("previous_response_id", "resp_1"),
    ],
)
def test_what_changes_the_whole_prompt_changes_all_names(field: str, value: object) -> None:
    messages = {"messages": say(*TURNS)}

    assert shared(prompt_of(messages), prompt_of({**messages, field: value})) == 0


def test_tools_come_before_the_system_prompt_and_the_messages() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": PROSE * 4}}]
    one = prompt_of({"system": PROSE * 3, "messages": say(PROSE * 3), "tools": tools})
    other = prompt_of({"tools": tools, "messages": say(PROSE * 9), "system": PROSE * 3})

    assert 0 < shared(one, other) < len(one.chunks)
    assert one.ends[shared(one, other) - 1] * 4 > len(json.dumps(tools)) + len(PROSE * 3) - 200


def test_a_short_difference_between_tools_tells_the_messages_apart() -> None:
    def with_tool(name: str) -> Prompt:
        return prompt_of({"tools": [{"name": name}], "messages": say(*TURNS)})

    assert shared(with_tool("f"), with_tool("g")) == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/completions", "prompt"),
        ("/v1/responses", "input"),
        ("/v1/messages", "messages"),
        ("/generate", "text"),
        ("/inference/v1/generate", "token_ids"),
        ("", "messages"),
        ("/a/path/of/the/settings", "messages"),
    ],
)
def test_each_api_has_its_fields(path: str, field: str) -> None:
    assert prompt_of({field: PROSE * 20}, path).chunks


def test_the_same_text_in_another_field_is_another_prompt() -> None:
    one, other = prompt_of({"prompt": PROSE * 20}), prompt_of({"input": PROSE * 20})

    assert shared(one, other) == 0


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/rerank", "/tokenize", "/openai/deployments/m/embeddings"]
)
def test_requests_that_continue_no_prompt_have_none(path: str) -> None:
    assert read({"input": PROSE * 20, "prompt": PROSE}, path) is None


@pytest.mark.parametrize("body", [{}, {"model": "m"}, {"question": PROSE}])
def test_a_body_without_a_prompt_has_none(body: dict[str, Any]) -> None:
    assert read(body) is None


def test_a_form_has_none() -> None:
    assert read_prompt(None, CHAT, "m", TokenLengths()) is None


def test_an_image_counts_as_one_and_not_by_its_bytes() -> None:
    image = base64.b64encode(bytes(range(256)) * 800).decode()
    body = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": PROSE * 3},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
                ],
            },
            *say(*TURNS)[1:],
        ]
    }

    prompt = prompt_of(body)
    text = len(json.dumps(body)) - len(image)

    assert prompt.tokens == pytest.approx(text / 4 + MEDIA_TOKENS, abs=USUAL_CHUNK)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": None}},
        {"type": "input_audio", "input_audio": {"data": None, "format": "wav"}},
    ],
    ids=["anthropic", "sound"],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_so_does_other_media(content: dict[str, Any], separators: tuple[str, str]) -> None:
    media = base64.b64encode(bytes(range(256)) * 400).decode()
    text = json.dumps(
        {"messages": [{"role": "user", "content": [content]}, *say(*TURNS)]}, separators=separators
    )
    body = text.replace("null", f'"{media}"').encode()

    assert prompt_of(body).tokens < len(text) / 4 + MEDIA_TOKENS + USUAL_CHUNK


def test_another_image_is_another_prompt() -> None:
    def showing(data: bytes) -> Prompt:
        url = "data:image/png;base64," + base64.b64encode(data * 5000).decode()
        image = {"type": "image_url", "image_url": {"url": url}}
        return prompt_of({"messages": [{"role": "user", "content": [image]}, *say(*TURNS)]})

    one, other = showing(b"\1\2"), showing(b"\1\3")
    assert shared(one, other) == 0


def with_images(characters: int, images: int, text: str = "") -> bytes:
    """A chat with a text and small images, without white space, as most clients write it."""
    url = "data:image/png;base64," + "QUJD" * (characters // 4)
    image = {"type": "image_url", "image_url": {"url": url}}
    messages = [
        {"role": "user", "content": text},
        {"role": "user", "content": [image] * images},
    ]
    return json.dumps({"messages": messages}, separators=(",", ":")).encode()


@pytest.mark.parametrize("before", [0, 20_000, 200_000])
def test_small_images_count_for_little_more_than_their_bytes(before: int) -> None:
    body = with_images(1_200, 4, PROSE * (before // len(PROSE)))

    assert len(body) / 4 - 10 <= prompt_of(body).tokens <= len(body) / 4 + 4 * MEDIA_TOKENS


@pytest.mark.parametrize("characters", [0, 4, 100, 430, 1_000, 5_000])
def test_a_body_of_small_images_has_few_chunks(characters: int) -> None:
    assert len(prompt_of(with_images(characters, 300)).chunks) < 300


@pytest.mark.slow
def test_names_are_the_same_in_every_process() -> None:
    code = (
        "import json; from tests.unit.extproc.test_prompt_reading import *; "
        "print(json.dumps(list(prompt_of({'messages': say(*TURNS)}).chunks)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(filter(None, sys.path))},
        timeout=60,
    ).stdout

    chunks = prompt_of({"messages": say(*TURNS)}).chunks
    assert json.loads(printed) == list(chunks)


def test_names_have_64_bits() -> None:
    names = prompt_of({"messages": say(*[PROSE * 20] * 40)}).chunks

    assert len(set(names)) == len(names) > 50
    assert max(names) < 1 << 64
    assert sum(name >> 60 for name in names) > 0


def test_long_prompts_have_few_chunks() -> None:
    lengths = {size: len(prompt_of({"prompt": "x y " * (size // 4)}).chunks) for size in SIZES}

    assert lengths[20_000] < 45
    assert lengths[220_000] < 130
    assert lengths[4_000_000] < 230


SIZES = (20_000, 220_000, 4_000_000)

HOSTILE = {
    "braces": b"}" * MAX_READ_BYTES,
    "ends of messages": b"}," * (MAX_READ_BYTES // 2),
    "quotes": b'\\"' * (MAX_READ_BYTES // 2),
    "base64": b"QUJD" * (MAX_READ_BYTES // 4),
    "spaces": b" " * MAX_READ_BYTES,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_has_many_chunks(text: bytes) -> None:
    prompt = prompt_of(b'{"prompt": "data:,%b"}' % text)

    assert len(prompt.chunks) < 600
    assert prompt.ends == sorted(prompt.ends)
    assert prompt.tokens >= prompt.ends[-1]


def test_the_end_of_a_text_that_is_too_long_counts_but_has_no_names() -> None:
    body = {"prompt": PROSE * (2 * MAX_READ_BYTES // len(PROSE))}
    prompt = prompt_of(body)

    assert prompt.ends[-1] * 4 <= MAX_READ_BYTES
    assert prompt.size == pytest.approx(2 * MAX_READ_BYTES, rel=0.01)


@pytest.mark.parametrize(
    "value",
    [
        b"null",
        b"5",
        b"[]",
        b"{}",
        b'""',
        b'"',
        b"[[[[]]]]",
        b'[null, "a", 7, {"role": 5}]',
        b"  [ ] ",
    ],
)
def test_any_value_of_a_field_is_read(value: bytes) -> None:
    try:
        read(b'{"messages": %b, "prompt": %b, "tools": %b}' % (value, value, value))
    except BodyError:
        assert value == b'"'


def test_half_an_emoji_hides_no_prompt() -> None:
    assert prompt_of(b'{"prompt": "\\ud83d%b"}' % (PROSE.encode() * 20)).chunks


CHARACTERS = st.sampled_from(["a", " ", '"', "\\", "{", "}", ",", "},", "\n", "ü", "数", "[", "]"])
CONTENT = st.lists(CHARACTERS, max_size=12).map("".join)


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, str]]:
    """Chats whose messages are short pieces, each repeated, so that beginnings are often equal."""
    pieces = draw(st.lists(st.tuples(CONTENT, st.sampled_from((1, 20, 200))), max_size=6))
    return say(*(piece * times for piece, times in pieces))


@pytest.mark.slow
@examples(60)
@given(chats(), chats(), st.booleans())
def test_the_same_beginnings_and_no_others_have_the_same_names(
    one: list[dict[str, str]], other: list[dict[str, str]], ascii_only: bool
) -> None:
    bodies = [
        json.dumps(messages, ensure_ascii=ascii_only).encode()
        for messages in (one, one[:3] + other[3:], other)
    ]
    prompts = [prompt_of(b'{"messages": %b}' % body) for body in bodies]
    for mine, body in zip(prompts, bodies, strict=True):
        for theirs, text in zip(prompts, bodies, strict=True):
            ends = zip(mine.chunks, mine.ends, theirs.chunks, theirs.ends, strict=False)
            for name, end, their_name, their_end in ends:
                same = end == their_end and body[: int(end * 4)] == text[: int(end * 4)]
                assert (name == their_name) == same


@pytest.mark.slow
@examples(60)
@given(chats(), chats())
def test_of_a_chat_that_continues_only_the_last_name_may_change(
    before: list[dict[str, str]], after: list[dict[str, str]]
) -> None:
    first, second = prompt_of({"messages": before}), prompt_of({"messages": before + after})

    assert shared(first, second) >= len(first.chunks) - 1


class Counted(bytes):
    """Bytes that count how many of them are copied or searched, in all of them together."""

    touched = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        Counted.touched += len(found) if isinstance(found, bytes) else 1
        return found

    def find(self, what: Any, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else min(end, len(self))
        at = super().find(what, start, end)
        Counted.touched += max(0, (end if at < 0 else at) - start)
        return at

    def rfind(self, what: Any, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else min(end, len(self))
        at = super().rfind(what, start, end)
        Counted.touched += max(0, end - max(at, start))
        return at


PIECES = (
    b'"data:',
    b'"data":"',
    b'"data" : "',
    b'"',
    b'""',
    b"}",
    b"},",
    b"QUJD" * 20,
    b"QUJD" * 130,
    b"QUJD" * 2_000,
    b" ",
    b"\\",
    "ü".encode(),
    b"[{",
)


@st.composite
def texts_with_media(draw: st.DrawFn) -> bytes:
    """Texts of pieces of images, some of them many times over."""
    pieces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map(b"".join)
    runs = draw(st.lists(st.tuples(pieces, st.sampled_from((1, 3, 40, 1_500))), max_size=5))
    return b"".join(piece * min(times, 1 + 500_000 // len(piece)) for piece, times in runs)


@examples(100)
@given(texts_with_media())
def test_every_byte_is_read_once_whatever_images_a_text_has(text: bytes) -> None:
    lengths: list[int] = []

    def hash_of(chunk: bytes, seed: int = 0) -> int:
        lengths.append(len(chunk))
        return xxh3_64_intdigest(chunk, seed)

    chunks: list[int] = []
    ends: list[int] = []
    Counted.touched = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_reading, "bytes", Counted, raising=False)
        patch.setattr(prompt_reading, "xxh3_64_intdigest", hash_of)
        prompt_reading._read_part(Raw(text), 7, 0, chunks, ends)

    assert sum(lengths) == len(text) - text.endswith((b'"', b"]")) - white_before_the_end(text)
    assert all(lengths[:-1])
    assert all(end > start for start, end in pairwise([0, *ends]))
    assert len(chunks) <= most_chunks(ends[-1] if ends else 0)
    assert Counted.touched <= 10 * len(text) + 10_000


def white_before_the_end(text: bytes) -> int:
    """Return how much white space precedes the bracket at the end."""
    inner = text.removesuffix(b"]")
    return len(inner) - len(inner.rstrip()) if text != inner else 0


def most_chunks(distance: float) -> float:
    """Return how many chunks there are before a distance at most.

    Chunks have at least 128 bytes, and from 4 KB on at least a 32nd of the distance. Each may be
    followed by the rest of an image, which may be short.
    """
    near, far = min(distance, 4096) / LEAST_CHUNK, math.log(max(1.0, distance / 4096), 33 / 32)
    return 2 * (near + far + 1)


@given(st.binary(max_size=400), st.sampled_from(["messages", "prompt", "tools", "input"]))
def test_no_text_breaks_it(text: bytes, field: str) -> None:
    body = json.dumps({field: text.decode("latin-1") * 5})
    prompt = prompt_of(body.encode())

    assert prompt.size == len(body) - len(field) - 7
    assert all(
        end - start >= LEAST_CHUNK / 4
        for start, end in zip([0, *prompt.ends], prompt.ends, strict=False)
    )
