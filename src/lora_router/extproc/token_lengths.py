"""How many bytes a token has, as the answers of pods show: ``usage.prompt_tokens``.

The router has no tokenizer. English text has about four bytes a token; text whose characters are
written as escapes, and other languages, have more or fewer. What answers state is learned for each
name of a model, and for all of them together, which serves the names that have stated nothing yet:
most adapters of a fleet share the tokenizer of one base model.
"""

from collections import OrderedDict

from lora_router.fleet.prompt import TOKEN_BYTES

LEAST_BYTES, MOST_BYTES = 1.0, 16.0
"""What is learned stays within this. A tokenizer of single bytes has 1. Nothing that people write
has more than 16, but a template may drop most of a request."""
MAX_MODELS = 1000
"""Names of models about which something is kept. The one asked for least recently is forgotten."""
_MEMORY_TOKENS = 100_000.0
"""The learned length follows about this many tokens, so that one odd prompt changes little."""


class _Length:
    """The bytes and the tokens that answers stated, of which older ones weigh less."""

    __slots__ = ("bytes", "of_token", "tokens")

    def __init__(self) -> None:
        self.bytes = self.tokens = 0.0
        self.of_token = TOKEN_BYTES

    def learn(self, size: float, tokens: float) -> None:
        self.bytes += size
        self.tokens += tokens
        if self.tokens > _MEMORY_TOKENS:
            kept = _MEMORY_TOKENS / self.tokens
            self.bytes *= kept
            self.tokens *= kept
        self.of_token = min(max(self.bytes / self.tokens, LEAST_BYTES), MOST_BYTES)


class TokenLengths:
    """The length of a token, by model."""

    __slots__ = ("_all", "_models")

    def __init__(self) -> None:
        self._all = _Length()
        self._models: OrderedDict[str, _Length] = OrderedDict()

    def of(self, model: str) -> float:
        """Return how many bytes a token of a model's prompts has."""
        return self._models.get(model, self._all).of_token

    def learn(self, model: str, size: int, tokens: int) -> None:
        """Take in how many tokens a prompt had.

        Args:
            model: The model that was asked.
            size: Bytes of the prompt (``Prompt.size``). 0: they are not known.
            tokens: Its tokens, as the answer states.
        """
        if size <= 0 or tokens <= 0:
            return
        self._all.learn(size, tokens)
        models = self._models
        length = models.get(model)
        if length is None:
            length = models[model] = _Length()
            if len(models) > MAX_MODELS:
                models.popitem(last=False)
        else:
            models.move_to_end(model)
        length.learn(size, tokens)
