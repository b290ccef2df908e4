"""The length of a request's prompt."""

from lora_router.routing.algorithm import InferenceRequest

_TOKEN_BYTES = 4
"""Of English text, roughly."""


def tokens_of(request: InferenceRequest) -> float:
    """Return the tokens of the prompt, estimated from the length of the body if it is not read."""
    prompt = request.prompt
    return request.size / _TOKEN_BYTES if prompt is None else prompt.tokens
