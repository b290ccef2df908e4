"""Reads the adapter options of vLLM and SGLang from the words of a command line.

Sources: vLLM's ``FlexibleArgumentParser`` (``vllm/utils/argparse_utils.py``: dashes and underscores
are the same in the name of an option), ``LoRAParserAction`` (``vllm/entrypoints/openai``,
``cli_args.py``: ``NAME=PATH`` or JSON) and ``LoRAConfig`` (``vllm/config/lora.py``); SGLang's
``server_args.py``. Both parsers are Python's ``argparse``: ``--option value`` or
``--option=value``, an unambiguous beginning of a name stands for the name, and of an option that is
given twice the last value counts.
"""

from collections.abc import Sequence

import msgspec

from lora_router.discovery.shell_words import UNKNOWN

VLLM, SGLANG = "vllm", "sglang"
MAX_SIZE = 1_000_000
"""The largest number of adapters that is believed."""
MAX_PRELOADED = 4096
"""How many preloaded adapters are stored, the last ones."""

MAX_LORAS, MAX_CPU_LORAS = "max-loras", "max-cpu-loras"
MAX_LORAS_PER_BATCH, MAX_LOADED_LORAS = "max-loras-per-batch", "max-loaded-loras"
LORA_MODULES, LORA_PATHS = "lora-modules", "lora-paths"
CONFIG = "config"

_SHORTEST = {
    MAX_LORAS: len(MAX_LORAS),  # Shorter ones also begin --max-lora-rank.
    MAX_CPU_LORAS: len("max-cp"),
    MAX_LORAS_PER_BATCH: len("max-loras-"),
    MAX_LOADED_LORAS: len("max-load"),
    LORA_MODULES: len("lora-m"),
    LORA_PATHS: len("lora-p"),
    CONFIG: len(CONFIG),
}
"""The options, and the length of the shortest beginning that no other option of the server has."""
_OF_NAMES = frozenset({LORA_MODULES, LORA_PATHS})
_OF_SGLANG = frozenset({MAX_LORAS_PER_BATCH, MAX_LOADED_LORAS, LORA_PATHS})
_OF_VLLM = frozenset({MAX_LORAS, MAX_CPU_LORAS, LORA_MODULES})


class Options(msgspec.Struct, frozen=True):
    """What one command says. An option whose value is not known is in ``unreadable``."""

    engine: str | None
    """``vllm`` or ``sglang``. ``None``: the command starts neither."""
    numbers: dict[str, int]
    """The options that are numbers, by name."""
    names: tuple[str, ...]
    """The adapters that are loaded at the start, in order."""
    unreadable: tuple[str, ...]
    """Options with a value that is no number from 1 to ``MAX_SIZE``, or not known."""
    more_elsewhere: bool
    """Whether options may be in a file or a variable that is not seen."""


def read_options(words: Sequence[str]) -> Options:
    """Return the adapter options of a command."""
    numbers: dict[str, int] = {}
    unreadable: dict[str, None] = {}
    names: tuple[str, ...] = ()
    seen: set[str] = set()
    for at, word in enumerate(words):
        if not word.startswith("--"):
            continue
        written, has_value, value = word[2:].partition("=")
        option = _option(written)
        if option is None:
            continue
        seen.add(option)
        following = words[at + 1 :]
        if option in _OF_NAMES:
            names = _names([value] if has_value else _values(following))
        elif option != CONFIG:
            number = _number(value if has_value else next(iter(following), ""))
            if number is None:
                numbers.pop(option, None)
                unreadable[option] = None
            else:
                numbers[option] = number
                unreadable.pop(option, None)
    return Options(
        _engine(words, seen),
        numbers,
        names,
        tuple(unreadable),
        more_elsewhere=CONFIG in seen or UNKNOWN in words,
    )


def _option(written: str) -> str | None:
    name = written.replace("_", "-")
    if name in _SHORTEST:
        return name
    for option, shortest in _SHORTEST.items():
        if len(name) >= shortest and option.startswith(name):
            return option
    return None


def _engine(words: Sequence[str], seen: set[str]) -> str | None:
    for word in words:
        program = word.rpartition("/")[2]
        if program == VLLM or word.startswith("vllm.entrypoints"):
            return VLLM
        if program == SGLANG or word.startswith("sglang.launch_server"):
            return SGLANG
    if seen & _OF_SGLANG:
        return SGLANG
    return VLLM if seen & _OF_VLLM else None


def _number(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if 1 <= number <= MAX_SIZE else None


def _values(words: Sequence[str]) -> list[str]:
    """Return the values of an option that takes any number of them."""
    values = []
    for word in words:
        if word.startswith("-") and len(word) > 1:
            break
        values.append(word)
    return values


def _names(items: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for item in items:
        for name in _names_of(item):
            if name and UNKNOWN not in name:
                found.pop(name, None)
                found[name] = None
    return tuple(found)[-MAX_PRELOADED:]


def _names_of(item: str) -> list[str]:
    if not item.startswith(("{", "[")):
        return [item.partition("=")[0]]
    try:
        document = msgspec.json.decode(item)
    except msgspec.MsgspecError:
        return []
    entries = document if isinstance(document, list) else [document]
    found = []
    for entry in entries:
        if isinstance(entry, dict):
            name = entry.get("name", entry.get("lora_name"))
            if isinstance(name, str):
                found.append(name)
    return found
