"""Requests to a simulated pod: JSON and form bodies, read as vLLM reads them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from lora_router.simulator.metrics_page import MAX_MODEL_LEN

DEFAULT_OUTPUT_TOKENS = 16
BLOCK_TOKENS = 16
"""Tokens that a name of a block stands for."""
CHARACTERS_PER_TOKEN = 4
_MOST_CHOICES = 128
"""Answers to one request."""


class RequestError(Exception):
    """The request is answered with an error in vLLM's format."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Asked:
    """One parsed request."""

    model: str
    """``""`` if the request names no model: the base model."""
    prompt_tokens: int
    output_tokens: int
    stream: bool = False
    include_usage: bool = False
    inputs: int = 1
    """Number of texts to embed."""
    choices: int = 1
    """Answers to generate (``n``)."""
    blocks: tuple[int, ...] = ()
    """Names of the full blocks of the prompt, of ``BLOCK_TOKENS`` tokens each."""


async def read_completion(request: web.Request) -> Asked:
    """Read the body of ``/v1/chat/completions`` or ``/v1/completions``.

    Raises:
        RequestError: The body is invalid.
    """
    document = await read_object(request)
    options = document.get("stream_options")
    text = prompt_text(document.get("messages") or document.get("prompt") or "")
    prompt_tokens = count_tokens(text)
    return Asked(
        model=_model(document),
        prompt_tokens=prompt_tokens,
        blocks=name_blocks(text),
        output_tokens=_output_tokens(document, prompt_tokens),
        choices=_choices(document),
        stream=document.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


async def read_embedding(request: web.Request) -> Asked:
    """Read the body of ``/v1/embeddings``.

    Raises:
        RequestError: The body is invalid.
    """
    document = await read_object(request)
    texts = document.get("input")
    for text in texts if isinstance(texts, list) else [texts or ""]:
        _check_fits(count_tokens(prompt_text(text)), 0)
    return Asked(
        model=_model(document),
        prompt_tokens=count_tokens(prompt_text(texts or "")),
        output_tokens=1,  # An embedding takes one step.
        inputs=len(texts) if isinstance(texts, list) else 1,
    )


async def read_transcription(request: web.Request) -> Asked:
    """Read the form of ``/v1/audio/transcriptions``.

    Raises:
        RequestError: The body is not a form, or has no file.
    """
    try:
        form = await request.post()
    except ValueError:
        raise RequestError(400, "Bad Request", "The body is not a form.") from None
    file = form.get("file")
    if not isinstance(file, web.FileField):
        raise RequestError(400, "Bad Request", "Field required", "body.file")
    with file.file as audio:
        size = len(audio.read())
    return Asked(
        model=_model(form),
        prompt_tokens=max(1, size // 1000),
        output_tokens=DEFAULT_OUTPUT_TOKENS,
    )


async def read_object(request: web.Request) -> dict[str, object]:
    """Read a body that must be a JSON object.

    Raises:
        RequestError: It is not one.
    """
    try:
        document = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise RequestError(400, "Bad Request", "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise RequestError(400, "Bad Request", "The body is not a JSON object.")
    return document


def prompt_text(prompt: object) -> str:
    """Return what stands for the tokens of a prompt: its text, or the JSON of its messages.

    The JSON has no end, so that the messages of a chat begin as those of its next turn do.
    """
    return prompt if isinstance(prompt, str) else json.dumps(prompt).removesuffix("]")


def count_tokens(text: str) -> int:
    """Return roughly how many tokens a text has: one for four characters, and at least one."""
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def name_blocks(text: str) -> tuple[int, ...]:
    """Return a name for each full block of a text: a hash of all that stands up to its end.

    vLLM hashes the tokens of each block together with the hash of the block before it.
    """
    size = BLOCK_TOKENS * CHARACTERS_PER_TOKEN
    so_far = hashlib.blake2b(digest_size=8)
    names = []
    for end in range(size, len(text) + 1, size):
        so_far.update(text[end - size : end].encode(errors="surrogatepass"))
        names.append(int.from_bytes(so_far.digest()))
    return tuple(names)


def _model(document: Mapping[str, object]) -> str:
    model = document.get("model")
    if model is None:
        return ""
    if not isinstance(model, str):
        raise RequestError(400, "Bad Request", "Input should be a valid string", "body.model")
    return model


def _output_tokens(document: Mapping[str, object], prompt_tokens: int) -> int:
    output_tokens = _given_output_tokens(document)
    if output_tokens is None:
        output_tokens = max(0, min(DEFAULT_OUTPUT_TOKENS, MAX_MODEL_LEN - prompt_tokens))
        # An answer has at least one token.
        _check_fits(prompt_tokens + (not output_tokens), output_tokens)
    else:
        _check_fits(prompt_tokens, output_tokens)
    return output_tokens


def _choices(document: Mapping[str, object]) -> int:
    value = document.get("n")
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_CHOICES:
        message = f"n must be from 1 to {_MOST_CHOICES}, got {value!r}."
        raise RequestError(400, "BadRequestError", message, "n")
    return value


def _check_fits(prompt_tokens: int, output_tokens: int) -> None:
    """Check that a request is no longer than the model allows.

    Raises:
        RequestError: It is longer.
    """
    total = prompt_tokens + output_tokens
    if total > MAX_MODEL_LEN:
        raise RequestError(
            400,
            "BadRequestError",
            f"This model's maximum context length is {MAX_MODEL_LEN} tokens. However, you "
            f"requested {output_tokens} output tokens and your prompt contains at least "
            f"{prompt_tokens} input tokens, for a total of at least {total} tokens. Please reduce "
            "the length of the input prompt or the number of requested output tokens. "
            f"(parameter=input_tokens, value={prompt_tokens})",
            "input_tokens",
        )


def _given_output_tokens(document: Mapping[str, object]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = document.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RequestError(400, "BadRequestError", f"{name} must be at least 1.", name)
        if value > MAX_MODEL_LEN:
            raise RequestError(
                400,
                "BadRequestError",
                f"{name}={value} cannot be greater than max_model_len={MAX_MODEL_LEN}. Please "
                f"request fewer output tokens. (parameter={name}, value={value})",
                name,
            )
        return value
    return None
