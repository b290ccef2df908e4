"""The length of a request's prompt."""

from lora_router.fleet.prompt import TOKEN_BYTES
from lora_router.routing.algorithm import InferenceRequest


def tokens_of(request: InferenceRequest) -> float:
    """Return the tokens of the prompt, estimated from the length of the body if it is not read."""
    prompt = request.prompt
    return request.size / TOKEN_BYTES if prompt is None else prompt.tokens
