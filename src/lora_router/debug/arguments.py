"""The parameters of questions, and what values they may have."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from lora_router.debug.decision_rows import Wanted
from lora_router.debug.questions import Kind, Question
from lora_router.whole_numbers import whole_number

_Value = TypeVar("_Value")

MAX_TEXT = 4096
"""Characters of a parameter."""
OUTCOMES = ("routed", "refused", "answered", "cancelled")
LIMITS: Mapping[Kind, tuple[int, int]] = {
    "adapters": (500, 2048),
    "held": (200, 2048),
    "decisions": (100, 1000),
    "steps": (500, 2048),
}
"""For each kind of rows that are bounded: how many there are unless the question says otherwise,
and the most."""
PARAMETERS: Mapping[Kind, tuple[str, ...]] = {
    "routers": (),
    "pods": (),
    "adapters": ("limit",),
    "held": ("limit",),
    "decisions": ("limit", "since", "model", "pod", "outcome", "abnormal", "slow"),
    "decision": ("id", "router"),
    "facts": (),
    "explain": ("model", "strategy", "filter", "size"),
    "steps": ("limit",),
    "order": ("action", "name", "source", "base_model", "copies"),
}
"""The parameters of each kind."""


class ArgumentsError(ValueError):
    """A parameter is not known, or its value is invalid. The message names it."""


class Arguments:
    """The parameters of one question, checked."""

    def __init__(self, kind: Kind, args: Mapping[str, str]) -> None:
        """Check the parameters.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
        """
        self._kind = kind
        self._args = args
        known = PARAMETERS[kind]
        for name, value in args.items():
            if name not in known:
                allowed = f"known are {', '.join(known)}" if known else "there are none"
                raise ArgumentsError(f"unknown parameter {name!r:.80}; {allowed}")
            if len(value) > MAX_TEXT:
                raise ArgumentsError(f"{name}: longer than {MAX_TEXT} characters")
        default, most = LIMITS.get(kind, (1, 1))
        self.limit = self.whole("limit", 1, most) or default
        self.size = self.whole("size", 0, 1 << 40) or 0
        self.wanted = self._wanted()
        """Which decisions are asked for."""

    @classmethod
    def of(cls, question: Question) -> "Arguments":
        """Return the parameters of a question.

        Raises:
            ArgumentsError: A parameter is not known, or its value is invalid.
        """
        return cls(question.kind, question.args)

    def text(self, name: str) -> str | None:
        """Return a parameter; ``None``: it is absent or empty."""
        return self._args.get(name) or None

    def whole(self, name: str, least: int, most: int) -> int | None:
        """Return a whole number; ``None``: it is absent."""
        text = self.text(name)
        if text is None:
            return None
        number = whole_number(text, least, most)
        if number is None:
            must = f"must be a whole number from {least} to {most}"
            raise ArgumentsError(f"{name}={text:.80}: {must}")
        return number

    def flag(self, name: str) -> bool | None:
        """Return a truth value; ``None``: it is absent."""
        return self._checked(name, "must be true or false", {"true": True, "false": False}.get)

    def _wanted(self) -> Wanted:
        return Wanted(
            limit=self.limit,
            since=self._checked("since", "must be seconds since 1970", _seconds),
            model=self.text("model"),
            pod=self.text("pod"),
            outcome=self._checked("outcome", f"must be one of {', '.join(OUTCOMES)}", _outcome),
            abnormal=self.flag("abnormal"),
            slow=self.flag("slow"),
        )

    def _checked(self, name: str, must: str, read: Callable[[str], _Value | None]) -> _Value | None:
        text = self.text(name)
        if text is None:
            return None
        value = read(text)
        if value is None:
            raise ArgumentsError(f"{name}={text:.80}: {must}")
        return value


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e12 else None


def _outcome(text: str) -> str | None:
    return text if text in OUTCOMES else None
