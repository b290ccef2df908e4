"""What routing knows of a prompt: how long it is, and names for its beginnings.

A server keeps the keys and values of prompts that it has processed, in blocks, and a prompt that
begins like an earlier one needs only the rest (vLLM: *automatic prefix caching*). So the router
names the beginnings of a prompt, and compares the names.
"""

from collections.abc import Sequence

from msgspec import Struct

TOKEN_BYTES = 4.0
"""Bytes of a token of English text, by the tokenizers of today."""


class Prompt(Struct, frozen=True, gc=False):
    """A prompt, without its text."""

    tokens: float
    """Its length, as estimated."""
    chunks: Sequence[int] = ()
    """Names of its beginnings, the shortest first. Two prompts have the same nth name if they are
    equal up to the end of the nth chunk, and otherwise with a probability of 2**-60 or less."""
    ends: Sequence[float] = ()
    """Where each of these beginnings ends, in tokens from the start."""
    size: int = 0
    """Its length in bytes, by which the tokens were estimated. 0: they are no estimate."""


class PromptUse(Struct, frozen=True, gc=False):
    """What was known of a prompt when a pod was picked for it."""

    tokens: float
    """Its length, as estimated."""
    cached: float
    """How many of these tokens the pod was believed to have in its cache."""
    size: int
    """Its length in bytes, by which the tokens were estimated. 0: they are no estimate."""
