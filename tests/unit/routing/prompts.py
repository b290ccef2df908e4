"""Prompts, and pods that have their beginnings."""

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import InferenceRequest
from tests.fleet import state_of

CHUNK = 64
"""Tokens of a chunk."""


def prompt(*chunks: int) -> Prompt:
    """Return a prompt of whole chunks with these names, in which two prompts may begin alike."""
    names = [hash(chunks[: length + 1]) for length in range(len(chunks))]
    ends = [CHUNK * (length + 1) for length in range(len(chunks))]
    return Prompt(CHUNK * len(chunks), names, ends)


def asks(*chunks: int, model: str = "sql-lora") -> InferenceRequest:
    """Return a request with such a prompt, for an adapter or for ``base``."""
    return InferenceRequest(model, None if model == "base" else model, prompt=prompt(*chunks))


def has_seen(fleet: Fleet, number: int, *chunks: int, model: str = "sql-lora") -> None:
    """Let a pod have a prompt in its cache."""
    fleet.prefixes.sent(state_of(fleet, number), model, prompt(*chunks))
