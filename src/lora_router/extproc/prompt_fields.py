"""The fields of a JSON body from which a pod makes the prompt, as they are written.

``body`` finds them in the pass that it makes anyway. They are views of the body.
"""

from msgspec import Raw, Struct

NOTHING = Raw(b"")
"""The value of a field that is missing."""


class PromptFields(Struct):
    """The fields. Each API has some of them."""

    # What changes a prompt as a whole.
    cache_salt: Raw = NOTHING
    chat_template: Raw = NOTHING
    chat_template_kwargs: Raw = NOTHING
    documents: Raw = NOTHING
    reasoning_effort: Raw = NOTHING
    tool_choice: Raw = NOTHING
    previous_response_id: Raw = NOTHING
    conversation: Raw = NOTHING

    # The prompt, in the order in which most templates render it.
    tools: Raw = NOTHING
    functions: Raw = NOTHING
    system: Raw = NOTHING
    instructions: Raw = NOTHING
    messages: Raw = NOTHING
    prompt: Raw = NOTHING
    input: Raw = NOTHING
    text: Raw = NOTHING
    input_ids: Raw = NOTHING
    token_ids: Raw = NOTHING


PARTS = (
    "tools",
    "functions",
    "system",
    "instructions",
    "messages",
    "prompt",
    "input",
    "text",
    "input_ids",
    "token_ids",
)
"""The fields that make up the prompt."""
CONTEXT = tuple(name for name in PromptFields.__struct_fields__ if name not in PARTS)
"""The fields that change it as a whole."""
