"""From where pods may load adapters: a list of prefixes that the operator sets.

Rules:

- Sources in the operator's own file need no prefix while the list is empty. Otherwise every source
  must begin with one of the prefixes.
- A prefix is compared by segments: ``s3://lora/team`` allows ``s3://lora/team/a``, and neither
  ``s3://lora/team-b`` nor ``s3://lora/team/../other``.
- A source that needs a prefix contains nothing that a reader could take for another place: no
  ``.`` or ``..`` as a segment, no empty segment, no backslash, no query, no fragment, no user, and
  no percent sign, because ``%2e%2e`` is ``..`` to whoever decodes it.
- Clients name no source. A template makes one from the name of a model (``templates``).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lora_router.adapters.declared import MAX_SOURCE_LENGTH

OPERATORS_FILE = "file"
"""The origin of adapters in the operator's file."""
MAX_PREFIXES = 64
"""How many prefixes there may be."""

_IN_HOST = r"""A-Za-z0-9!"$&'()*+,;<=>\[\]^_`{|}~\-"""
_FIT = f"{_IN_HOST}:"
"""All printable ASCII characters but ``.``, ``/``, ``@``, ``\\``, ``%``, ``?`` and ``#``."""
_HOST = rf"[{_IN_HOST}.][{_FIT}.]*"
"""A host, and maybe a port: not a port alone, which would stand for all hosts."""
_SEGMENT = rf"(?:\.{{0,2}}[{_FIT}@]|\.\.\.)[{_FIT}.@]*"
_PATH = rf"{_SEGMENT}(?:/{_SEGMENT})*/?"
SCHEME = "[A-Za-z][A-Za-z0-9+.-]*://"
"""How a URL begins, as a regular expression."""
PREFIX_PATTERN = (
    rf"/|/?{_PATH}|{SCHEME}(?:{_HOST})?|{SCHEME}{_HOST}/(?:{_PATH})?"
    rf"|[Ff][Ii][Ll][Ee]:///(?:{_PATH})?"
)
"""What ``PREFIX_RULE`` says, as a regular expression of Python and of Go."""
_PREFIX = re.compile(PREFIX_PATTERN)
_SCHEME = re.compile(SCHEME)
_USUAL_PORTS = {"http": ":80", "https": ":443"}

SOURCE_RULE = f"a path or URL of 1 to {MAX_SOURCE_LENGTH} printable characters"
PREFIX_RULE = (
    "a path or URL of ASCII characters without '.' and '..' as segments, and without a backslash, "
    "'%', '?', '#', '@', white space, and a port that has no host"
)


class SourceError(ValueError):
    """A source is none that pods may load. The message says why, and does not name the source."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A source, taken apart."""

    root: str
    """The scheme and the host, or ``/``, or nothing if the path is relative."""
    segments: tuple[str, ...]


def is_source(text: object) -> bool:
    """Return whether a value can be a source at all: see ``SOURCE_RULE``."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= MAX_SOURCE_LENGTH
        and text.isprintable()
        and not text.isspace()
    )


class AllowedSources:
    """The prefixes of sources that pods may load."""

    __slots__ = ("_prefixes", "_shown")

    def __init__(self, prefixes: Iterable[str] = ()) -> None:
        """Create the list.

        Args:
            prefixes: The beginnings of allowed sources.

        Raises:
            SourceError: One of them is not a prefix: see ``PREFIX_RULE``.
        """
        self._shown = tuple(prefixes)
        self._prefixes = tuple(_taken_apart(prefix) for prefix in self._shown)

    def check(self, source: object, origin: str) -> None:
        """Raise an error if pods may not load a source.

        Args:
            source: The path or URL.
            origin: Who declares it. ``OPERATORS_FILE`` needs no prefix while there is none.

        Raises:
            SourceError: They may not.
        """
        if not isinstance(source, str) or not is_source(source):
            raise SourceError(f"must be {SOURCE_RULE}")
        if not self._prefixes and origin == OPERATORS_FILE:
            return
        if not self._prefixes:
            raise SourceError("must begin with a prefix in adapter_sources, which is empty")
        try:
            place = _taken_apart(source)
        except SourceError as error:
            raise SourceError(f"must be {error}, because adapter_sources is set") from None
        if not any(_begins(place, prefix) for prefix in self._prefixes):
            raise SourceError(
                f"must begin with a prefix in adapter_sources: {', '.join(self._shown[:5])}"
                + (", …" if len(self._shown) > 5 else "")
            )


def check_prefix(text: str) -> str:
    """Return a prefix of sources as it was written.

    Raises:
        SourceError: It is none: see ``PREFIX_RULE``.
    """
    _taken_apart(text)
    return text


def _begins(place: _Place, prefix: _Place) -> bool:
    if place.root != prefix.root:
        # "s3://" allows all hosts.
        return prefix.root.endswith("://") and place.root.startswith(prefix.root)
    return place.segments[: len(prefix.segments)] == prefix.segments


def _taken_apart(text: str) -> _Place:
    """Return the parts of a source that is compared with prefixes, or of a prefix."""
    if not is_source(text) or _PREFIX.fullmatch(text) is None:
        raise SourceError(PREFIX_RULE)
    found = _SCHEME.match(text)
    if found is None:
        root = "/" if text.startswith("/") else ""
        path = text.removeprefix("/")
    else:
        scheme = found[0].removesuffix("://").lower()
        host, slash, path = text[found.end() :].partition("/")
        host = host.lower().removesuffix(_USUAL_PORTS.get(scheme, ""))
        root = f"{scheme}://{host}" if host or not slash else f"{scheme}:///"
    return _Place(root, tuple(path.removesuffix("/").split("/")) if path else ())
