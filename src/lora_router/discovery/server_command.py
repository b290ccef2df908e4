"""Finds the command that starts the model server of a pod, and what it says about adapters.

The command of a container is its ``command`` and ``args``, in which Kubernetes replaces ``$(NAME)``
by variables of the container (package ``third_party/forked/golang/expansion`` of Kubernetes; ``$$``
is a dollar sign). Variables whose values are in a ConfigMap or a Secret are not known. If the
command is a shell with a script, the script is searched (``shell_words``). The words that are read
here can contain secrets, so no message repeats them.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from lora_router.discovery.pod_object import Container, PodObject
from lora_router.discovery.pod_ports import running_containers
from lora_router.discovery.server_options import (
    MAX_CPU_LORAS,
    MAX_LOADED_LORAS,
    MAX_LORAS,
    MAX_LORAS_PER_BATCH,
    MAX_SIZE,
    SGLANG,
    VLLM,
    Options,
    read_options,
)
from lora_router.discovery.shell_words import MAX_SCRIPT, commands
from lora_router.fleet.engine_names import LOADS_WHEN_LISTED
from lora_router.fleet.lora_spec import ASSUMED, COMMAND_LINE, UNLIMITED, LoraSpec

_MAX_DEPTH = 4
"""Shells within shells."""
_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z0-9]+)\))")
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_SHELL_OPTIONS = re.compile(r"[-+][a-zA-Z]+")
_MAX_KNOWN = 256
_known: dict[bytes, Options | None] = {}
"""What the last commands said, by their digests."""


def spec_of(found: PodObject, port: int, engine: str | None, problems: list[str]) -> LoraSpec:
    """Return what the command line of a pod's server says.

    Args:
        found: The pod.
        port: The port of its requests, which tells servers apart if it has several.
        engine: The engine of its label. ``None``: it has none.
        problems: Gets a line for each option that cannot be used.
    """
    servers = [
        (container, options)
        for container in running_containers(found.spec)
        if (options := _options(container)) is not None
    ]
    of_port = [
        each for each in servers if any(port == its.container_port for its in each[0].ports or ())
    ]
    for container, options in of_port or servers:
        if engine is None or engine == options.engine or engine not in LOADS_WHEN_LISTED:
            return _spec(container.name, options, problems)
    return LoraSpec(loads_when_listed=engine in LOADS_WHEN_LISTED)


def _spec(container: str, options: Options, problems: list[str]) -> LoraSpec:
    problems += [
        f"container {container!r}: the value of --{option} is not known, or is no number from 1 to "
        f"{MAX_SIZE}; it is ignored"
        for option in options.unreadable
    ]
    numbers = options.numbers
    if options.engine == SGLANG:
        slots = numbers.get(MAX_LORAS_PER_BATCH)
        size = numbers.get(MAX_LOADED_LORAS)
        is_known = MAX_LOADED_LORAS not in options.unreadable
        size = UNLIMITED if size is None and is_known else size
    else:
        slots = numbers.get(MAX_LORAS)
        size = numbers.get(MAX_CPU_LORAS)
        if size is None and MAX_CPU_LORAS not in options.unreadable and not options.more_elsewhere:
            size = slots
    return LoraSpec(
        slots=slots,
        host_memory=size,
        source=ASSUMED if size is None else COMMAND_LINE,
        preloaded=options.names,
        loads_when_listed=True,
    )


def _options(container: Container) -> Options | None:
    """Return the options of the server in a container; ``None``: it has none that is known."""
    variables = _variables(container)
    written = chain(container.command or (), container.args or ())
    words = [_expanded(word, variables) for word in written]
    size = sum(map(len, words)) + sum(map(len, variables.values()))
    if size > MAX_SCRIPT:
        return None
    # Replicas have the same command, and each change of a pod's status brings it again.
    key = hashlib.blake2b(repr((container.image, words, variables)).encode()).digest()
    if key not in _known:
        if len(_known) >= _MAX_KNOWN:
            del _known[next(iter(_known))]
        _known[key] = _read(container, words, variables)
    return _known[key]


def _read(
    container: Container, words: Sequence[str], variables: Mapping[str, str]
) -> Options | None:
    all_commands = map(read_options, _commands(words, variables, 0))
    found = [options for options in all_commands if options.engine is not None]
    if not found:
        return _of_image(container)
    return found[0] if len(found) == 1 else _merged(found)


def _of_image(container: Container) -> Options | None:
    """Return the options for an image that starts a server by itself, without adapter options."""
    name = container.image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
    for engine in (VLLM, SGLANG):
        if engine in name and not container.command:
            return Options(engine, {}, (), (), more_elsewhere=False)
    return None


def _merged(found: Sequence[Options]) -> Options:
    """Return what several commands of a script say together: only what they do not contradict."""
    numbers: dict[str, int] = {}
    unreadable = dict.fromkeys(name for options in found for name in options.unreadable)
    for options in found:
        for name, number in options.numbers.items():
            if numbers.setdefault(name, number) != number:
                unreadable[name] = None
    for name in unreadable:
        numbers.pop(name, None)
    lists = {options.names for options in found if options.names}
    return Options(
        next(options.engine for options in found),
        numbers,
        lists.pop() if len(lists) == 1 else (),
        tuple(unreadable),
        more_elsewhere=any(options.more_elsewhere for options in found),
    )


def _commands(
    words: Sequence[str], variables: Mapping[str, str], depth: int
) -> Iterator[Sequence[str]]:
    """Yield the words, or those of all commands of the script that they run."""
    script = _script(words)
    if script is None or depth >= _MAX_DEPTH:
        yield words
        return
    for command in commands(script, variables):
        yield from _commands(command, variables, depth + 1)


def _script(words: Sequence[str]) -> str | None:
    """Return the script that a shell runs; ``None``: no shell, or the script is in a file."""
    if words and words[0] == "eval":
        return " ".join(words[1:])
    for at, word in enumerate(words):
        if word.rpartition("/")[2] in _SHELLS:
            return _script_of_shell(words[at + 1 :])
        if word.startswith("--"):
            break
    return None


def _script_of_shell(words: Sequence[str]) -> str | None:
    is_given = False
    following = iter(words)
    for word in following:
        if word.startswith("--"):
            continue
        if not _SHELL_OPTIONS.fullmatch(word):
            return word if is_given else None
        is_given = is_given or (word[0] == "-" and "c" in word)
        if "o" in word:
            next(following, None)  # The name of an option: ``-o pipefail``.
    return None


def _variables(container: Container) -> dict[str, str]:
    """Return the variables of a container with known values."""
    known: dict[str, str] = {}
    for variable in container.env or ():
        known.pop(variable.name, None)
        if variable.value is not None:
            known[variable.name] = _expanded(variable.value, known)
    return known


def _expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace the references to known variables, as the kubelet does."""
    if "$" not in text:
        return text

    def value(reference: re.Match[str]) -> str:
        name = reference[1]
        return "$" if name is None else variables.get(name, reference[0])

    return _REFERENCE.sub(value, text)
