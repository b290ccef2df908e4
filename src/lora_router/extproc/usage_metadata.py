"""The dynamic metadata that tell Envoy how many tokens a request took.

Envoy's access log and its rate limits read them. They are added to those of the decision, which
have the same namespace, and take the place of what an earlier piece of the answer stated.
"""

from lora_router.extproc.decision_metadata import before_entries, number_entry
from lora_router.extproc.outputs import BodyPiece, EndStream, Outputs
from lora_router.extproc.usage_search import MAX_TOKENS, Usage


def usage_metadata(usage: Usage) -> bytes:
    """Return the part of an answer to Envoy that states the numbers; empty: none is known.

    They are ``prompt_tokens``, ``completion_tokens`` and ``cached_tokens``, as far as they are
    known, and ``total_tokens``, the sum of the first two.
    """
    if not usage.is_known:
        return b""
    numbers = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "cached_tokens": usage.cached,
        "total_tokens": min((usage.prompt or 0) + (usage.completion or 0), MAX_TOKENS),
    }
    entries = b"".join(
        number_entry(name, number) for name, number in numbers.items() if number is not None
    )
    return before_entries(len(entries)) + entries


def with_metadata(outputs: Outputs, metadata: bytes) -> Outputs:
    """Return answers to a message, of which the first states the metadata, too."""
    if not metadata or not outputs:
        return outputs
    first, *rest = outputs
    if isinstance(first, EndStream):
        return outputs
    if isinstance(first, BodyPiece):
        return (BodyPiece(metadata + first.head, first.body), *rest)
    return (metadata + first, *rest)
