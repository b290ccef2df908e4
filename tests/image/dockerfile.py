"""Reads a Dockerfile and replays it in a folder, without a container engine.

It supports the instructions of this project's Dockerfile and refuses all others, so that it never
ignores one silently. Sources: Docker's Dockerfile reference and its page on build contexts
(``.dockerignore``).

A replay does not test the base image (a folder made from the interpreter under test stands for it)
or anything that a kernel namespace would hide.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.surroundings import users_environment

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

# Where an absolute path begins: not inside a path or a pattern.
_ABSOLUTE = re.compile(r"(?<![\w.*$/}\]-])/(?=[a-z])")

_GLOB = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^]]*])")
_GLOB_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class UnsupportedError(ValueError):
    """The Dockerfile contains something that a replay does not support."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, with continued lines joined and without comments."""

    keyword: str
    flags: tuple[str, ...]
    """``--name=value``, as written."""
    text: str
    """Everything after the flags."""

    @property
    def words(self) -> list[str]:
        """Return the text as a list: the items of a JSON array, else shell words."""
        if self.text.startswith("["):
            words: list[str] = json.loads(self.text)
            return words
        return shlex.split(self.text)

    def flag(self, name: str) -> str | None:
        """Return the value of ``--name=``."""
        values = [flag.removeprefix(f"--{name}=") for flag in self.flags if f"--{name}=" in flag]
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class Stage:
    """The instructions from one FROM to the next."""

    base: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, keyword: str) -> list[Instruction]:
        """Return the instructions of one kind, in order."""
        return [each for each in self.instructions if each.keyword == keyword]


def read_dockerfile(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    arguments: dict[str, str] = {}
    heads: list[list[str]] = []
    bodies: list[list[Instruction]] = []
    for instruction in _instructions(text):
        if instruction.keyword == "FROM":
            heads.append(expand(instruction.text, arguments).split())
            bodies.append([])
        elif heads:
            bodies[-1].append(instruction)
        else:
            arguments.update(_pairs(instruction, arguments))
    return [
        Stage(head[0], head[2] if len(head) == 3 else "", tuple(body))
        for head, body in zip(heads, bodies, strict=True)
    ]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` by their values."""
    return _VARIABLE.sub(lambda match: variables[match[1] or match[2]], text)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        keyword, _, rest = line.strip().partition(" ")
        flags = []
        rest = rest.strip()
        while rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            flags.append(flag)
            rest = rest.lstrip()
        yield Instruction(keyword.upper(), tuple(flags), rest)


def _pairs(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in instruction.words]
    if not all(equals for _, equals, _ in pairs):
        raise UnsupportedError(f"{instruction.keyword} {instruction.text}: must be NAME=VALUE")
    return {name: expand(value, variables) for name, _, value in pairs}


class Context:
    """The folder that is sent to the build, without the files that ``.dockerignore`` excludes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = (folder / ".dockerignore").read_text().splitlines()
        self.patterns = [line.strip() for line in lines if line.strip() and line[0] != "#"]

    def has(self, path: str) -> bool:
        """Return whether a file is sent. The last pattern that matches it or its folder decides."""
        sent = True
        for pattern in self.patterns:
            if _ignore_regex(pattern.removeprefix("!")).fullmatch(path):
                sent = pattern.startswith("!")
        return sent

    def files(self, source: str) -> list[str]:
        """Return the files of ``COPY source``: the file itself, or all files below the folder."""
        path = self.folder / source
        found = [path] if path.is_file() else sorted(each for each in path.rglob("*"))
        names = [each.relative_to(self.folder).as_posix() for each in found if each.is_file()]
        return [name for name in names if self.has(name)]


def _ignore_regex(pattern: str) -> re.Pattern[str]:
    parts = _GLOB.split(pattern.strip("/"))
    regex = [
        _GLOB_REGEX.get(part, part if part.startswith("[") else re.escape(part)) for part in parts
    ]
    return re.compile("".join(regex) + "(?:/.*)?")


@dataclass(slots=True)
class Configuration:
    """The settings of a stage for containers made from it."""

    environment: dict[str, str]
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health_command: list[str] = field(default_factory=list)
    stop_signal: str = ""
    ports: list[int] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)

    def take(self, instruction: Instruction, variables: Mapping[str, str]) -> None:
        """Apply an instruction that configures containers and changes no file."""
        match instruction.keyword:
            case "LABEL":
                self.labels.update(_pairs(instruction, variables))
            case "USER":
                self.user = instruction.text
            case "EXPOSE":
                self.ports += map(int, instruction.words)
            case "STOPSIGNAL":
                self.stop_signal = instruction.text
            case "HEALTHCHECK":
                self.health_command = json.loads(instruction.text.removeprefix("CMD "))
            case "ENTRYPOINT":
                self.entrypoint = json.loads(instruction.text)
            case "CMD":
                self.command = json.loads(instruction.text)
            case keyword:
                raise UnsupportedError(keyword)


class Replay:
    """Builds the stages, one after the other, each in a folder that stands for ``/``.

    A stage that has ended is moved away, so what a later one does not copy is not there.
    """

    def __init__(
        self, folder: Path, context: Context, make_base: Callable[[Path], dict[str, str]]
    ) -> None:
        self.root = folder / "root"
        self._ended = folder / "ended"
        self._context = context
        self._make_base = make_base
        """Fills the folder with the base image's files. Returns the base image's environment."""

    def build(self, stages: list[Stage]) -> Configuration:
        """Build all stages. Return the settings of the last one."""
        self._ended.mkdir()
        for stage in stages:
            self.root.mkdir()
            configuration = self._build(stage)
            if stage is not stages[-1]:
                self.root.rename(self._ended / stage.name)
        shutil.rmtree(self._ended)
        return configuration

    def outside(self, text: str) -> str:
        """Return a text of the image with its absolute paths translated to paths outside of it."""
        return _ABSOLUTE.sub(f"{self.root}/", text)

    def environment(self, inside: Mapping[str, str]) -> dict[str, str]:
        """Return an environment of the image with paths translated for processes outside of it."""
        return {name: self.outside(value) for name, value in inside.items()}

    def _build(self, stage: Stage) -> Configuration:
        image = Configuration(environment=self._make_base(self.root))
        arguments: dict[str, str] = {}
        for each in stage.instructions:
            variables = {**arguments, **image.environment}
            match each.keyword:
                case "ARG":
                    arguments.update(_pairs(each, variables))
                case "ENV":
                    image.environment.update(_pairs(each, variables))
                case "WORKDIR":
                    image.folder = each.text
                    self._place(image, ".").mkdir(parents=True, exist_ok=True)
                case "COPY":
                    self._copy(each, image)
                case "RUN":
                    self._run(each, image)
                case _:
                    image.take(each, variables)
        return image

    def _place(self, image: Configuration, path: str) -> Path:
        return self.root / Path("/", image.folder, path).relative_to("/")

    def _copy(self, instruction: Instruction, image: Configuration) -> None:
        *sources, target = instruction.words
        place = self._place(image, target)
        stage = instruction.flag("from")
        if stage is not None:
            (source,) = sources
            place.parent.mkdir(parents=True, exist_ok=True)
            (self._ended / stage / source.lstrip("/")).rename(place)
            return
        for source in sources:
            names = self._context.files(source)
            if not names:
                raise UnsupportedError(f"COPY {source}: not there, or kept out by .dockerignore")
            for name in names:
                # A folder's content goes into the target, a file keeps its name.
                short = Path(name).relative_to(source) if name != source else Path(name).name
                copy = place / short if target.endswith("/") or name != source else place
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._context.folder / name, copy)

    def _run(self, instruction: Instruction, image: Configuration) -> None:
        """Run it with this machine's pip configuration and caches, in place of the mounts."""
        for flag in instruction.flags:
            if not flag.startswith(("--mount=type=cache,", "--mount=type=secret,")):
                raise UnsupportedError(f"RUN {flag}")
        command = self.outside(instruction.text)
        # An absolute path that is left was not translated.
        inside = command.replace(f"{self.root}/", "")
        for word in shlex.split(inside):
            if word.startswith(("/", "~", "..", "$")):
                raise UnsupportedError(f"{word} may be outside of the folder: RUN {inside}")
        users = users_environment().items()
        ours = {name: value for name, value in users if not _is_pythons(name)}
        environment = {**ours, **self.environment(image.environment)}
        environment["PATH"] += os.pathsep + "/usr/bin:/bin"
        done = subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=self._place(image, "."),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"RUN {instruction.text}\n{done.stdout}"


def _is_pythons(name: str) -> bool:
    """Return whether a variable would redirect the image's Python or pip."""
    return name.startswith(("PYTHON", "COV_")) or name in {
        "VIRTUAL_ENV",
        "PIP_PREFIX",
        "PIP_TARGET",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
    }
