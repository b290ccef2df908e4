"""Mappings with declared keys: a dataclass whose fields say what each key may be.

``Record(SomeKeys).read(document)`` returns the dataclass or raises an error that names the key.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from lora_router.simulator.key_kinds import Kind, WrongValueError, refuse, shown

Value = TypeVar("Value")


class HasFields(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Keys = TypeVar("Keys", bound=HasFields)


@dataclass(frozen=True, slots=True)
class Key:
    """What stands beside the name of a key."""

    kind: Kind[object]
    about: str


def key(kind: Kind[Value], about: str, default: object = MISSING) -> Value:
    """Declare a key in a dataclass whose fields are keys.

    Args:
        kind: What the value may be.
        about: One sentence or more for the reference.
        default: As the kind reads it. The key is required if there is none.
    """
    declared: Any = field(default=default, metadata={"key": Key(kind, about)})
    result: Value = declared
    return result


def keys_of(keys: type[HasFields]) -> dict[str, tuple[Key, object]]:
    """Return the keys of a dataclass, each with its default (``MISSING``: required)."""
    return {each.name: (each.metadata["key"], each.default) for each in fields(keys)}


@dataclass(frozen=True, slots=True)
class Record(Generic[Keys]):
    """A mapping with the keys of a dataclass."""

    keys: type[Keys]

    def __str__(self) -> str:
        return f"a mapping with the keys {', '.join(keys_of(self.keys))}"

    def read(self, value: object) -> Keys:
        """Return the dataclass."""
        if not isinstance(value, Mapping):
            raise refuse(self, value)
        known = keys_of(self.keys)
        for name in value:
            if name not in known:
                raise self._unknown(name)
        found: dict[str, Any] = {}
        for name, (declared, default) in known.items():
            if name not in value:
                if default is MISSING:
                    raise WrongValueError(f"is required: {declared.kind}", name)
            elif value[name] is not None or default is not None:
                try:
                    found[name] = declared.kind.read(value[name])
                except WrongValueError as error:
                    raise error.inside(name) from None
        return self.keys(**found)

    def _unknown(self, name: object) -> WrongValueError:
        known = list(keys_of(self.keys))
        near = get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
        return WrongValueError(f"is not a key; {hint}", shown(name).strip("'"))
