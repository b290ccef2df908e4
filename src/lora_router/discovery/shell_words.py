"""Splits a shell script into the words of its commands, without running anything.

Containers often start their server with ``sh -c SCRIPT``. This module reads such a script far
enough to find the options of the server: quotes, escapes, comments, here-documents, variables that
are known, and their defaults. It follows the grammar of POSIX (Shell Command Language, 2.2 to 2.9).

Rules:

- All commands of the script are returned, whatever ``if``, ``&&`` or loops say. The caller decides
  what different commands mean together.
- What only a running shell knows (the output of a command, a variable from elsewhere) becomes
  ``UNKNOWN`` within its word.
- A variable that is assigned twice with different values is unknown from then on.
- The words of an array are a command of their own.
"""

import re
from collections.abc import Iterator, Mapping

UNKNOWN = "\0"
"""Stands in a word for text that is not known."""
MAX_SCRIPT = 64 * 1024
"""Characters of a script that are read."""
_MAX_WORDS = 4096
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_HEREDOC = re.compile(r"<<(-?)[ \t]*(\\?[^\s;&|<>()]+)")
_DEFAULT = re.compile(r":?[-=]")
_DECLARATIONS = frozenset({"export", "readonly", "local", "declare"})
_ESCAPED_IN_QUOTES = '$`"\\'


def commands(script: str, variables: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the words of each command of a script.

    Args:
        script: The script.
        variables: The environment, as far as it is known.
    """
    yield from _Reader(script[:MAX_SCRIPT], variables).commands()


class _Reader:
    """One pass over a script."""

    def __init__(self, script: str, variables: Mapping[str, str]) -> None:
        self._text = script
        self._at = 0
        self._variables = dict(variables)
        self._assigned: set[str] = set()
        self._words: list[str] = []
        self._word: list[str] | None = None
        """The parts of the word that is being read. ``None``: none was begun."""
        self._total = 0

    def commands(self) -> Iterator[list[str]]:
        text = self._text
        while self._at < len(text) and self._total < _MAX_WORDS:
            char = text[self._at]
            if char in "\n;&|()" and not (char == "(" and self._begins_array()):
                self._at += 1
                yield from self._end_command()
            elif char == "(":  # Of an array: what follows is a command of its own.
                self._at += 1
                self._word = None
                yield from self._end_command()
            elif char in " \t\r":
                self._at += 1
                self._end_word()
            elif char == "#" and self._word is None:
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif char in "<>":
                self._redirect()
            else:
                self._part(char)
        yield from self._end_command()

    def _begins_array(self) -> bool:
        return self._word is not None and "".join(self._word).rstrip("+").endswith("=")

    def _part(self, char: str) -> None:
        """Read one part of a word: a character, a quoted text, or an expansion."""
        text = self._text
        if char == "\\":
            following = text[self._at + 1 : self._at + 2]
            self._at += 2
            if following != "\n":
                self._add(following)
        elif char == "'":
            end = text.find("'", self._at + 1)
            end = len(text) if end < 0 else end
            self._add(text[self._at + 1 : end])
            self._at = end + 1
        elif char == '"':
            self._quoted()
        elif char in "$`":
            self._add_fields(self._expansion())
        else:
            self._add(char)
            self._at += 1

    def _quoted(self) -> None:
        text = self._text
        self._add("")
        self._at += 1
        while self._at < len(text):
            char = text[self._at]
            if char == '"':
                self._at += 1
                return
            if char == "\\":
                following = text[self._at + 1 : self._at + 2]
                self._at += 2
                if following in _ESCAPED_IN_QUOTES:
                    self._add(following)
                elif following != "\n":
                    self._add(f"\\{following}")
            elif char in "$`":
                self._add(self._expansion())
            else:
                self._add(char)
                self._at += 1

    def _expansion(self) -> str:
        """Read what begins with a dollar sign or a backquote, and return its value."""
        text, start = self._text, self._at
        if text[start] == "`":
            end = text.find("`", start + 1)
            self._at = len(text) if end < 0 else end + 1
            return UNKNOWN
        following = text[start + 1 : start + 2]
        if following in {"(", "{"}:
            inner = self._bracketed("()" if following == "(" else "{}")
            return UNKNOWN if following == "(" else self._parameter(inner)
        name = _NAME.match(text, start + 1)
        if name is not None:
            self._at = name.end()
            return self._variables.get(name[0], UNKNOWN)
        if following and following in "@*#?$!-0123456789":
            self._at += 2
            return UNKNOWN
        self._at += 1
        return "$"

    def _bracketed(self, pair: str) -> str:
        """Read up to the closing bracket, and return what is inside."""
        text, depth = self._text, 0
        start = self._at + 2
        for at in range(self._at + 1, len(text)):
            depth += (text[at] == pair[0]) - (text[at] == pair[1])
            if not depth:
                self._at = at + 1
                return text[start:at]
        self._at = len(text)
        return text[start:]

    def _parameter(self, inner: str) -> str:
        """Return the value of ``${inner}``."""
        name = _NAME.match(inner)
        if name is None:
            return UNKNOWN
        value = self._variables.get(name[0])
        rest = inner[name.end() :]
        if not rest:
            return UNKNOWN if value is None else value
        operator = _DEFAULT.match(rest)
        if operator is None:
            return UNKNOWN
        if value or (value is not None and not operator[0].startswith(":")):
            return value
        default = rest[operator.end() :].strip("\"'")
        if any(char in default for char in "$`\\"):
            return UNKNOWN
        if operator[0].endswith("="):
            self._variables[name[0]] = default
        return default

    def _redirect(self) -> None:
        """Skip a redirection with its file, or a here-document with its text."""
        text = self._text
        heredoc = _HEREDOC.match(text, self._at)
        if heredoc is not None and not text.startswith("<<<", self._at):
            end = heredoc[2].strip("\\\"'")
            indent = r"\t*" if heredoc[1] else ""
            last_line = re.compile(rf"\n{indent}{re.escape(end)}(?=\n|$)")
            found = last_line.search(text, heredoc.end())
            self._at = len(text) if found is None else found.end()
            return
        self._end_word(drop=self._word is not None and "".join(self._word).isdigit())
        while self._at < len(text) and text[self._at] in "<>&| \t":
            self._at += 1
        while self._at < len(text) and text[self._at] not in " \t\r\n;&|()<>":
            self._at += 1

    def _add(self, text: str) -> None:
        if self._word is None:
            self._word = []
        self._word.append(text)

    def _add_fields(self, value: str) -> None:
        """Add the value of an expansion that is not quoted: it may be several words."""
        fields = value.split()
        if not fields:
            return
        if value[0].isspace():
            self._end_word()
        for number, field in enumerate(fields):
            if number:
                self._end_word()
            self._add(field)
        if value[-1].isspace():
            self._end_word()

    def _end_word(self, *, drop: bool = False) -> None:
        word, self._word = self._word, None
        if word is not None and not drop and self._total < _MAX_WORDS:
            self._words.append("".join(word))
            self._total += 1

    def _end_command(self) -> Iterator[list[str]]:
        self._end_word()
        words, self._words = self._words, []
        is_declaration = bool(words) and words[0] in _DECLARATIONS
        rest = words[is_declaration:]
        while rest and (assignment := _ASSIGNMENT.fullmatch(rest[0])):
            self._assign(assignment[1], assignment[2])
            del rest[0]
        if rest and not is_declaration:
            yield rest

    def _assign(self, name: str, value: str) -> None:
        before = self._variables.get(name)
        if name in self._assigned and before != value:
            value = UNKNOWN
        self._assigned.add(name)
        self._variables[name] = value
