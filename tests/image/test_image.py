"""The image: what its Dockerfile states, and what a replay of it builds.

The second half builds the image in a folder that stands for ``/``, with the commands of the
Dockerfile. It then runs the image's commands as the image's user: with an interpreter copied to the
base image's place, and without any file that the process could write.
"""

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from grpc_health.v1 import health_pb2

from lora_router import __version__
from lora_router.config.settings import Settings
from tests.envoy import free_port
from tests.health import health
from tests.image.dockerfile import (
    Configuration,
    Context,
    Replay,
    Stage,
    UnsupportedError,
    read_dockerfile,
)

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "Dockerfile").read_text()
STAGES = read_dockerfile(TEXT)
FINAL = STAGES[-1]
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", re.MULTILINE)

AS_ROOT = os.geteuid() == 0
NOT_IN_THE_IMAGE = (
    *("pip", "ensurepip", "setuptools", "wheel", "hatchling", "editables"),
    *("grpc_tools", "pytest", "mypy", "envoy"),
)


def commands(stage: Stage) -> list[str]:
    """Return the commands of the stage's RUN instructions."""
    return [part.strip() for each in stage.all("RUN") for part in each.text.split("&&")]


# What the Dockerfile says


def test_every_stage_has_the_same_base_pinned_by_a_full_tag() -> None:
    (base,) = {stage.base for stage in STAGES}
    pinned = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", base)
    assert pinned is not None
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: {pinned[1]}" in project["classifiers"]


def test_no_package_index_is_named() -> None:
    assert re.search(r"://|index-url|find-links|trusted-host|PIP_INDEX", TEXT) is None


def test_whatever_is_fetched_is_a_wheel_with_a_hash() -> None:
    installs = [each for stage in STAGES for each in commands(stage) if " install " in each]
    assert len(installs) == 3
    for each in installs:
        hashed = "--require-hashes" in each and "--only-binary :all:" in each
        assert hashed or "--no-index" in each
        assert "--no-deps" in each


def test_dependencies_are_installed_before_the_source_is_there() -> None:
    builder = STAGES[0].instructions
    source = next(
        n for n, each in enumerate(builder) if each.keyword == "COPY" and "src" in each.words
    )
    fetching = [n for n, each in enumerate(builder) if "--require-hashes" in each.text]
    assert max(fetching) < source


def test_the_context_is_what_is_copied_and_no_more() -> None:
    context = Context(PROJECT)
    copied = [source for each in STAGES[0].all("COPY") for source in each.words[:-1]]

    assert [source for source in copied if not context.files(source)] == []
    assert context.patterns[0] == "*"
    assert {each[1:] for each in context.patterns if each[0] == "!"} == set(copied)
    assert context.has("src/lora_router/cli/serve.py")
    for path in (
        *(".git/config", ".venv/bin/python", "tests/envoy.py", "requirements/dev.txt", "pods.yaml"),
        *("src/lora_router/__pycache__/app.cpython-313.pyc", "src/lora_router/app.pyc"),
    ):
        assert not context.has(path)


def test_the_final_stage_takes_away_and_compiles_and_does_nothing_else() -> None:
    assert [each.split()[0] for each in commands(FINAL)] == ["rm", "python"]
    assert commands(FINAL)[1].startswith("python -m compileall ")
    assert [each.flag("from") for each in FINAL.all("COPY")] == [STAGES[0].name]


@pytest.mark.parametrize("command", ["ls /", "ls '/ x'", "ls ~", "ls ../..", 'ls "$HOME"'])
def test_a_command_that_may_leave_the_replays_folder_is_not_run(
    tmp_path: Path, command: str
) -> None:
    replay = Replay(tmp_path, Context(PROJECT), lambda _root: {"PATH": "/bin"})
    assert replay.outside("rm -r /opt/x*/y a/b") == f"rm -r {tmp_path}/root/opt/x*/y a/b"
    with pytest.raises(UnsupportedError):
        replay.build(read_dockerfile(f"FROM base\nRUN true && {command}"))


# What comes out


def make_base(root: Path) -> dict[str, str]:
    """Fill ``root`` with /usr/local of the official image: Python and pip, without bytecode.

    Source of what it has and has not: 3.13/slim-trixie/Dockerfile in docker-library/python.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    local, name = root / "usr/local", stdlib.name
    library, programs = local / "lib" / name, local / "bin"
    kept_out = ("__pycache__", "test", "tests", "idle_test", "*-packages", "config-*")
    shutil.copytree(
        *(stdlib, library),
        ignore=shutil.ignore_patterns(*kept_out),
        ignore_dangling_symlinks=True,
    )
    (library / "ensurepip").mkdir(exist_ok=True)
    programs.mkdir()
    shutil.copy(Path(sys.executable).resolve(), programs / name)
    (programs / "python3").symlink_to(name)
    (programs / "python").symlink_to(name)
    shared = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME"))
    if shared.suffix != ".a" and shared.is_file():
        shutil.copy(shared, local / "lib")

    pip = importlib.util.find_spec("pip")
    assert pip is not None
    assert pip.origin is not None
    packages = library / "site-packages"
    for folder in Path(pip.origin).parents[1].glob("pip*"):
        shutil.copytree(folder, packages / folder.name, ignore=shutil.ignore_patterns(*kept_out))
    for program in ("pip", "pip3", name.replace("python", "pip")):
        (programs / program).touch()
    # Debian's Python looks for packages elsewhere.
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": "/usr/local/lib"}
    (seen, *_) = subprocess.run(
        [programs / "python", "-c", "import site; print(*site.getsitepackages(), sep='\\n')"],
        env={"LD_LIBRARY_PATH": str(local / "lib"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if Path(seen) != packages:
        Path(seen).mkdir(parents=True, exist_ok=True)
        (Path(seen) / "image.pth").write_text(f"{packages}\n")
    return environment


class Image:
    """The built image, and containers of it: processes of its user that cannot write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._replay = Replay(folder, Context(PROJECT), make_base)
        self.says: Configuration = self._replay.build(STAGES)
        self.root = self._replay.root
        self.prefix = self.root / "opt/lora-router"
        self.packages = next(self.prefix.glob("lib/python3.*/site-packages"))
        user, group = map(int, self.says.user.split(":"))
        self._identity: dict[str, Any] = (
            {"user": user, "group": group, "extra_groups": []} if AS_ROOT else {}
        )
        for path in (self.root, *self.root.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)

    def remove(self) -> None:
        for path in (self.root, *self.root.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(self.folder)

    def container(self, words: list[str], **environment: str) -> dict[str, Any]:
        """Return arguments for ``Popen``: the image's environment and user, nothing else."""
        inside = self._replay.environment(self.says.environment)
        return {
            # No file may become longer than it is; pipes may.
            "args": ["/bin/sh", "-c", 'ulimit -f 0; exec "$0" "$@"', *words],
            "env": {**inside, **environment},
            "cwd": self.says.folder,
            "stdin": subprocess.DEVNULL,
            **self._identity,
        }

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            **self.container(list(words), **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )

    def python(self, code: str) -> str:
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def files(self) -> dict[Path, tuple[int, int]]:
        found = ((path, path.lstat()) for path in self.root.rglob("*"))
        return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in found}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if sys.platform != "linux" or importlib.util.find_spec("pip") is None:
        pytest.skip("the image is built from a Python with pip, on Linux")
    # Not in tmp_path, which no other user may enter.
    folder = Path(tempfile.mkdtemp(prefix="image-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        built = Image(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise
    yield built
    built.remove()


def test_it_says_what_it_is_and_how_it_is_run(image: Image) -> None:
    says, fields = image.says, Settings.model_fields
    assert says.entrypoint + says.command == ["lora-router", "serve"]
    assert says.health_command == ["lora-router", "probe", "--service", "liveness"]
    assert (says.user, says.stop_signal) == ("65532:65532", "SIGTERM")
    assert says.ports == [fields["grpc_port"].default, fields["admin_port"].default]
    assert says.environment["PATH"].split(":")[0] == "/opt/lora-router/bin"
    assert says.environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert says.environment["PYTHONUNBUFFERED"] == "1"

    labels = {
        name.removeprefix("org.opencontainers.image."): says.labels[name] for name in says.labels
    }
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert (labels.pop("title"), labels.pop("licenses")) == (project["name"], project["license"])
    assert project["description"].startswith(labels.pop("description"))
    assert labels == dict.fromkeys(("source", "version", "revision", "created"), "")


@pytest.mark.skipif(not AS_ROOT, reason="only root can be another user; all else here ran as you")
def test_its_commands_run_as_its_user_and_in_no_other_group(image: Image) -> None:
    ids = image.python("import os; print(*os.getresuid(), *os.getresgid(), os.getgroups())")
    assert ids.split() == ["65532"] * 6 + ["[]"]


def test_its_commands_can_write_nowhere(image: Image) -> None:
    """The user does not own the image and creates no file in a world-writable folder."""
    for folder in (image.packages, image.prefix / "bin", image.root / "usr/local/lib"):
        assert "PermissionError" in image.run("python", "-c", f"open('{folder}/x', 'w')").stdout
    temporary = "import tempfile; tempfile.TemporaryFile(dir='/tmp', buffering=0).write(b'x')"
    assert "File too large" in image.run("python", "-c", temporary).stdout


def test_it_has_what_runtime_txt_pins_and_the_project(image: Image) -> None:
    pins = dict(PIN.findall((PROJECT / "requirements/runtime.txt").read_text()))
    found = importlib.metadata.distributions(path=[str(image.packages)])
    versions = {each.name.lower().replace("_", "-"): each.version for each in found}

    assert versions.pop("lora-router") == __version__
    assert versions.items() <= pins.items()
    # Windows needs the one, and Python before 3.11.3 the other.
    assert pins.keys() - versions.keys() <= {"colorama", "async-timeout"}
    assert image.run("lora-router", "--version").stdout == f"lora-router {__version__}\n"


def test_nothing_is_left_that_installs_builds_or_tests(image: Image) -> None:
    find = "import importlib.util as u; print(*(n for n in {!r} if u.find_spec(n)))"
    for python in (image.prefix / "bin/python", image.root / "usr/local/bin/python"):
        done = image.run(str(python), "-c", find.format(NOT_IN_THE_IMAGE))
        assert (done.returncode, done.stdout.strip()) == (0, "")
    assert [*image.prefix.glob("bin/pip*"), *image.root.glob("usr/local/bin/pip*")] == []
    assert sorted(path.name for path in image.root.iterdir()) == ["opt", "usr"]


def test_every_module_can_be_imported_and_all_come_from_the_image(image: Image) -> None:
    """All commands except the demo, which needs an Envoy that the image lacks."""
    code = """if True:
        import importlib, json, pkgutil, sys, lora_router
        for module in pkgutil.walk_packages(lora_router.__path__, "lora_router."):
            if not module.name.startswith(("lora_router.demo", "lora_router.__main__")):
                importlib.import_module(module.name)
        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        print(json.dumps([file for file in files if file]))
    """
    files = [Path(file) for file in json.loads(image.python(code))]

    assert image.packages / "lora_router/app.py" in files
    assert image.packages / "kubernetes/__init__.py" in files
    assert [file for file in files if not file.is_relative_to(image.root)] == []


def test_every_module_has_bytecode_that_asks_nothing_of_its_source(image: Image) -> None:
    """PEP 552: the flags after the magic number are 1 for a hash that is not checked."""
    sources = list(image.root.rglob("*.py"))
    assert len(sources) > 3000
    wrong = []
    for source in sources:
        cached = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        if not cached.is_file() or cached.read_bytes()[4:8] != b"\1\0\0\0":
            wrong.append(source)
    assert wrong == []


async def test_it_serves_says_so_and_ends_on_its_stop_signal(image: Image) -> None:
    pods = image.folder / "pods.yaml"
    # Nobody listens there: it becomes ready all the same.
    listed = [{"name": "vllm-0", "address": f"127.0.0.1:{free_port()}", "models": ["base"]}]
    pods.write_text(yaml.safe_dump({"pods": listed}))
    grpc_port, admin_port = free_port(), free_port()
    environment = {
        "LORA_ROUTER_ENDPOINTS": str(pods),
        "LORA_ROUTER_GRPC_PORT": str(grpc_port),
        "LORA_ROUTER_ADMIN_PORT": str(admin_port),
        "LORA_ROUTER_STARTUP_TIMEOUT_SECONDS": "0.5",
    }
    before = image.files()
    arguments = image.container(image.says.entrypoint + image.says.command, **environment)
    process = await asyncio.create_subprocess_exec(
        *arguments.pop("args"),
        **arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        await until_ready(process, admin_port)
        for service in ("readiness", "liveness"):
            assert await health(grpc_port, service) == health_pb2.HealthCheckResponse.SERVING
        probed = image.run(*image.says.health_command, **environment)
        assert probed.returncode == 0, probed.stdout

        process.send_signal(signal.Signals[image.says.stop_signal])
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
        output = (await process.stdout.read()).decode()
        await process.wait()
    assert "drained; 0 open streams closed" in output
    assert "Traceback" not in output
    assert image.files() == before


def test_its_health_check_fails_where_nothing_serves(image: Image) -> None:
    command = [*image.says.health_command, "--timeout", "0.5"]
    done = image.run(*command, LORA_ROUTER_GRPC_PORT=str(free_port()))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout


async def until_ready(process: asyncio.subprocess.Process, admin_port: int) -> None:
    async with asyncio.timeout(60), aiohttp.ClientSession() as client:
        while process.returncode is None:
            try:
                async with client.get(f"http://127.0.0.1:{admin_port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
    assert process.stdout is not None
    pytest.fail(f"it ended: {(await process.stdout.read()).decode()}")
