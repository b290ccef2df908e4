"""Blocks of code in pages of the documentation."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True, slots=True)
class Command:
    """A command in a console block, and what the page says that it prints."""

    text: str
    output: str


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a language, in their order."""
    return [text for found, text in _BLOCK.findall(page) if found == language]


def documents(page: str) -> list[Any]:
    """Return the documents of all YAML blocks."""
    return [
        document
        for block in blocks(page, "yaml")
        for document in yaml.load_all(block, Loader=yaml.CSafeLoader)
    ]


def commands(page: str) -> list[Command]:
    """Return the commands of all console blocks. Lines that begin with ``$`` begin a command."""
    found: list[Command] = []
    for block in blocks(page, "console"):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                last = found.pop()
                found.append(Command(last.text, f"{last.output}{line}\n"))
                continue
            text = line.removeprefix("$ ")
            while text.endswith("\\"):
                text += "\n" + next(lines)
            if heredoc := _HEREDOC.search(text):
                for body in lines:
                    text += "\n" + body
                    if body == heredoc[1]:
                        break
            found.append(Command(text, ""))
    return found
