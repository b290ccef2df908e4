"""Adapters that a YAML file declares."""

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.sources import AllowedSources
from lora_router.adapters.templates import Template
from lora_router.discovery import watched_file
from lora_router.discovery.adapters_file import AdaptersFile
from lora_router.discovery.adapters_list import AdaptersFileError, AdaptersList, parse_adapters
from lora_router.discovery.watched_file import WatchedFileError
from lora_router.routing.selector import parse_selector
from tests.waiting import until

EXAMPLE = """
adapters:
  - name: sql-lora
    base_model: meta-llama/Llama-3.1-8B
    source: s3://lora/sql
    pods: 2
    pinned: true
    version: 7
    share: 10
    aliases: [sql, gpt-sql]
  - {name: chat, base_model: llama, source: /srv/chat, pods: all}
  - {name: rare, base_model: llama, source: org/rare, pods: {selector: "gpu=h100", copies: all}}
  - {name: code, base_model: llama, source: org/code, pods: {selector: "gpu"}}
templates:
  - {base_model: llama, names: "tenant-*", source: "s3://lora/{name}"}
  - {base_model: llama, names: ["a-*", "*/b"], source: "s3://lora/x/{name}", pods: 3}
"""
LORA = AllowedSources(["s3://lora", "/srv", "org"])


def test_a_list_is_read() -> None:
    assert parse_adapters(EXAMPLE, LORA) == AdaptersList(
        (
            DeclaredAdapter(
                "sql-lora",
                "meta-llama/Llama-3.1-8B",
                "s3://lora/sql",
                WantedPods(copies=2),
                pinned=True,
                version="7",
                share=10,
                aliases=("sql", "gpt-sql"),
            ),
            DeclaredAdapter("chat", "llama", "/srv/chat", WantedPods(everywhere=True)),
            DeclaredAdapter(
                "rare",
                "llama",
                "org/rare",
                WantedPods(everywhere=True, selector=parse_selector("gpu=h100")),
            ),
            DeclaredAdapter(
                "code", "llama", "org/code", WantedPods(selector=parse_selector("gpu"))
            ),
        ),
        (
            Template("llama", ("tenant-*",), "s3://lora/{name}"),
            Template("llama", ("a-*", "*/b"), "s3://lora/x/{name}", WantedPods(copies=3)),
        ),
    )


def test_an_empty_list_is_a_list() -> None:
    assert parse_adapters("adapters: []") == AdaptersList()


def entry(**keys: str) -> str:
    all_keys = {"name": "a", "base_model": "llama", "source": "s3://lora/a", **keys}
    return "adapters: [{" + ", ".join(f"{key}: {value}" for key, value in all_keys.items()) + "}]"


@pytest.mark.parametrize("version", ["010", "0x1F", "1_000", "2:10", "-7"])
def test_a_version_is_what_was_written_even_if_it_looks_like_a_number(version: str) -> None:
    [adapter] = parse_adapters(entry(version=version), LORA).adapters
    assert adapter.version == version


def test_numbers_may_be_written_in_any_way() -> None:
    [adapter] = parse_adapters(entry(pods="1_000", share="0x0A"), LORA).adapters
    assert (adapter.pods, adapter.share) == (WantedPods(copies=1000), 10)


def template(**keys: str) -> str:
    all_keys = {"base_model": "llama", "names": "'a-*'", "source": "'s3://lora/{name}'", **keys}
    return "templates: [{" + ", ".join(f"{key}: {value}" for key, value in all_keys.items()) + "}]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adapters: [", "line 2, column 1: not YAML"),
        ("", "must be a mapping with the keys 'adapters' and 'templates'"),
        ("adapter: []", "the file: unknown key 'adapter'; did you mean 'adapters'?"),
        ("adapters: {}", "'adapters' must be a list of at most 20000 entries"),
        ("templates: 1", "'templates' must be a list of at most 100 entries"),
        ("adapters: [1]", "adapter 1: must be a mapping with the keys name, base_model, source"),
        (entry(copys="1"), "adapter 1: unknown key 'copys'; known are name, base_model"),
        (entry(sorce="1"), "adapter 1: unknown key 'sorce'; did you mean 'source'?"),
        (entry(name="a@1"), "adapter 1: name='a@1': must be 1 to 256 printable characters"),
        (entry(name="7"), "adapter 1: name=7: must be"),
        (entry(base_model="''"), "adapter 'a': base_model='': must be the name of a model"),
        (entry(source="7"), "adapter 'a': source=7: must be a path or URL"),
        (entry(source="/etc"), "adapter 'a': source='/etc': must begin with a prefix in adapter_s"),
        (entry(pinned="1"), "adapter 'a': pinned=1: must be true or false"),
        (entry(share="101"), "adapter 'a': share=101: must be a whole number from 0 to 100"),
        (entry(share="true"), "adapter 'a': share=True: must be a whole number"),
        (entry(version="1.10"), "adapter 'a': version=1.1: must be 1 to 256 printable characters"),
        (entry(version="a@b"), "adapter 'a': version='a@b': must be"),
        (entry(aliases="x"), "adapter 'a': aliases='x': must be a list of up to 16 different"),
        (entry(aliases="[a]"), "adapter 'a': aliases=['a']: must be a list of up to 16 different"),
        (entry(aliases="[[b]]"), "adapter 'a': aliases=[['b']]: must be a list"),
        (entry(pods="0"), "adapter 'a': pods=0: must be 'all', a whole number from 1 to 10000, or"),
        (entry(pods="[1]"), "adapter 'a': pods=[1]: must be 'all'"),
        (entry(pods="{copies: some}"), "adapter 'a': pods={'copies': 'some'}: must be 'all'"),
        (entry(pods="{select: a}"), "adapter 'a': pods: unknown key 'select'; did you mean"),
        (entry(pods="{selector: 'a in'}"), "pods: selector='a in': must be a Kubernetes label sel"),
        (entry()[:-1] + ", " + entry()[11:], "adapter 'a': is declared twice"),
        (template(name="x"), "template 1: unknown key 'name'; did you mean 'names'?"),
        (template(names="a"), "template 1: names='a': must be a pattern, or a list of 1 to 16"),
        (template(names="['a*', 1]"), "template 1: names=['a*', 1]: must be a pattern"),
        (template(source="1"), "template 1: source=1: must be a string with {name}"),
        (template(source="s3://lora/x"), "template 1: source='s3://lora/x': must contain {name}"),
        (template(source="'s3://x/{name}'"), "must begin with a prefix in adapter_sources"),
        (entry(name="llama"), "adapter 'llama': name: 'llama' is a base model"),
        (entry(aliases="[x, llama]"), "aliases: 'llama' is a base model; must be another name"),
        (template(base_model="1"), "template 1: base_model=1: must be the name of a model"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(AdaptersFileError) as error:
        parse_adapters(text, LORA)
    assert message in str(error.value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.sampled_from(["a", "*", "all", "s3://lora/{name}", "gpu in (a)"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "name",
                        "base_model",
                        "source",
                        "pods",
                        "pinned",
                        "version",
                        "share",
                        "aliases",
                        "names",
                        "selector",
                        "copies",
                        "adapters",
                        "templates",
                    ]
                ),
                inner,
                max_size=6,
            )
        ),
    ),
    st.sampled_from(["adapters", "templates"]),
)
def test_no_content_whatever_raises_anything_else(content: object, section: str) -> None:
    for text in (repr(content), f"{section}: [{content!r}]"):
        try:
            found = parse_adapters(text, LORA)
        except AdaptersFileError:
            continue
        assert all(adapter.source for adapter in found.adapters)


class Watched:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.lists: list[AdaptersList] = []
        self.file = AdaptersFile(path, LORA, self._declare, interval=0.01, clock=lambda: self.now)

    async def _declare(self, found: AdaptersList) -> None:
        self.lists.append(found)

    @property
    def names(self) -> list[str]:
        return [adapter.name for adapter in self.lists[-1].adapters]


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    path = tmp_path / "adapters.yaml"
    path.write_text(entry())
    return Watched(path)


async def test_an_edit_is_followed(watched: Watched) -> None:
    await watched.file.start()
    assert watched.names == ["a"]
    watched.path.write_text(entry(name="b"))
    await until(lambda: watched.names == ["b"])
    await watched.file.stop()


async def test_a_link_of_a_mounted_config_map_is_followed(tmp_path: Path) -> None:
    for folder, name in (("one", "a"), ("two", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "adapters.yaml").write_text(entry(name=name))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "adapters.yaml").symlink_to("..data/adapters.yaml")
    watched = Watched(tmp_path / "adapters.yaml")
    await watched.file.start()

    (tmp_path / "..new").symlink_to("two")
    os.replace(tmp_path / "..new", tmp_path / "..data")  # noqa: PTH105

    await until(lambda: watched.names == ["b"])
    await watched.file.stop()


@pytest.mark.parametrize("bad", ["adapters: [", "gone", "too long"])
async def test_the_last_valid_list_stays_in_use_and_its_age_is_shown(
    watched: Watched,
    bad: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await watched.file.start()
    assert watched.file.status() == {"adapters_file_age_seconds": 0.0}
    if bad == "too long":
        monkeypatch.setattr(watched_file, "MAX_FILE_BYTES", 10)
        watched.path.write_text(entry(name="b"))
    elif bad == "gone":
        watched.path.unlink()
    else:
        watched.path.write_text(bad)

    await until(lambda: watched.file.last_error is not None)
    watched.now = 90.0
    await asyncio.sleep(0.05)

    status = watched.file.status()
    assert status["adapters_file_age_seconds"] == 90.0
    assert str(watched.path) in str(status["adapters_file_error"])
    assert len(watched.lists) == 1
    logged = [line for line in caplog.messages if "stays in use" in line]
    assert len(logged) == 1
    assert "the last valid list of 1 adapter and 0 templates stays" in logged[0]

    monkeypatch.undo()
    watched.path.write_text(entry())
    watched.file.refresh()
    await until(lambda: watched.file.last_error is None)
    await watched.file.stop()


async def test_an_invalid_file_aborts_the_start(watched: Watched) -> None:
    watched.path.write_text(entry(pods="some"))
    with pytest.raises(WatchedFileError, match=r"adapters.yaml: adapter 'a': pods='some'"):
        await watched.file.start()


@pytest.mark.slow
async def test_a_file_that_is_written_line_by_line_is_used_when_it_is_whole(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    await watched.file.start()
    looks: list[bytes] = []
    parts = [entry(name=f"b{number}") for number in range(5)]

    def parse(content: bytes) -> AdaptersList:
        """Read a version of the file, after which the next one is written."""
        looks.append(content)
        if parts:
            watched.path.write_text(parts.pop(0))
        return parse_adapters(content)

    watched.file._parse = parse
    watched.path.write_text(entry(name="b"))
    await until(lambda: watched.names == ["b4"])
    await watched.file.stop()
    assert len(watched.lists) == 2
    assert len(looks) == 6
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


@pytest.mark.slow
async def test_a_file_that_changes_all_the_time_is_used_in_the_end(watched: Watched) -> None:
    await watched.file.start()
    number = 0

    def parse(content: bytes) -> AdaptersList:
        nonlocal number
        number += 1
        watched.path.write_text(entry(name=f"b{number}"))
        return parse_adapters(content)

    watched.file._parse = parse
    watched.path.write_text(entry(name="b"))
    await until(lambda: watched.names != ["a"])
    await watched.file.stop()


async def test_a_list_that_could_not_be_used_is_used_again(watched: Watched) -> None:
    await watched.file.start()
    failed: list[AdaptersList] = []

    async def use(found: AdaptersList) -> None:
        if not failed:
            failed.append(found)
            raise RuntimeError("once")
        watched.lists.append(found)

    watched.file._declare = use
    watched.path.write_text(entry(name="b"))
    await until(lambda: watched.names == ["b"])
    await watched.file.stop()


async def test_a_fault_that_a_file_causes_is_an_error_of_that_file(watched: Watched) -> None:
    await watched.file.start()

    def broken(_content: bytes) -> AdaptersList:
        raise RecursionError("deep")

    watched.file._parse = broken
    watched.path.write_text(entry(name="b"))
    await until(lambda: watched.file.last_error is not None)
    assert "cannot be read: RecursionError" in str(watched.file.last_error)
    await watched.file.stop()
