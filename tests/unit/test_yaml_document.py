"""YAML that people and machines write, and YAML that breaks readers."""

import os
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router import yaml_document
from lora_router.yaml_document import (
    WrittenNumber,
    YamlDocumentError,
    is_whole_number,
    parse_yaml,
    read_file,
)


def test_a_document_is_read() -> None:
    text = """
    # A comment.
    name: vllm-0
    address: 10.0.0.7:8000
    ready: yes
    slots: 0x10
    share: 0.5
    none: ~
    built: 2024-01-05
    quoted: "2024-13-45"
    models: [base, 'sql lora']
    about: >
      two
      lines
    """
    assert parse_yaml(text) == {
        "name": "vllm-0",
        "address": "10.0.0.7:8000",
        "ready": True,
        "slots": 16,
        "share": 0.5,
        "none": None,
        "built": date(2024, 1, 5),
        "quoted": "2024-13-45",
        "models": ["base", "sql lora"],
        "about": "two lines\n",
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [("010", 8), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("1:30", 90), ("+5", 5), ("-0", 0)],
)
def test_a_number_still_has_what_was_written(written: str, value: int) -> None:
    document = parse_yaml(f"[{written}]")
    assert document == [value] == yaml.safe_load(f"[{written}]")
    assert isinstance(document, list)
    assert isinstance(document[0], WrittenNumber)
    assert (str(document[0]), f"{document[0]}", repr(document)) == (
        written,
        written,
        f"[{written}]",
    )


def test_plain_numbers_are_integers_and_booleans_are_none() -> None:
    document = parse_yaml("[8, 0, -12, true]")
    assert isinstance(document, list)
    assert [type(each) for each in document] == [int, int, int, bool]
    assert [is_whole_number(each) for each in document] == [True, True, True, False]


def test_an_empty_document_is_none() -> None:
    assert parse_yaml("") is None
    assert parse_yaml("# nothing but a comment\n") is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_editors_write_are_read(encoding: str) -> None:
    assert parse_yaml("a: ü".encode(encoding)) == {"a": "ü"}


def test_aliases_and_merge_keys_share_what_pods_have_in_common() -> None:
    text = """
    common: &common {gpu: h100, zone: a}
    more: &more {zone: b, rack: 7}
    one: {<<: *common, zone: c}
    two: {zone: c, <<: [*common, *more]}
    three: *common
    """
    document = parse_yaml(text)

    assert isinstance(document, dict)
    assert document["one"] == {"gpu": "h100", "zone": "c"}
    assert document["two"] == {"gpu": "h100", "zone": "c", "rack": 7}
    assert document["three"] == {"gpu": "h100", "zone": "a"}
    assert document == yaml.safe_load(text)


BAD_VALUES = {
    "labels: {built: 2024-13-45}": "line 1, column 17: '2024-13-45' is not a valid timestamp",
    "a: 1\nb: " + "9" * 5000: "line 2, column 4: '9{40}…' is longer than 100 characters; quote it",
    "a: 0b" + "1" * 5000: "longer than 100 characters",
    "a: 1:" + ":".join(["59"] * 2000): "longer than 100 characters",
    "a: !!int ''": "line 1, column 4: '' is not a valid int",
    "a: !!bool maybe": "'maybe' is not a valid bool",
    "a: !!float x": "'x' is not a valid float",
    "a: !!timestamp x": "'x' is not a valid timestamp",
    "a: !!python/object/apply:os.system [ls]": "the tag !!python/object/apply:os.system is not",
    "a: !!set {x}": "line 1, column 4: the tag !!set is not supported",
    "a: !!binary aGk=": "the tag !!binary is not supported",
    "a: !mine x": "the tag !mine is not supported",
    "!mine": "the tag !mine is not supported",
    "a: 1\na: 2": "line 2, column 1: duplicate key 'a'",
    "? [a]\n: b": "line 1, column 3: a key must not be a list or a mapping",
    "a: &x [1]\n? *x\n: b": "line 2, column 3: a key must not be a list or a mapping",
    "<<: 1": "line 1, column 1: '<<' needs a mapping, or a list of mappings",
    "<<: [{}, 1]": "'<<' needs a mapping, or a list of mappings",
    "a: *b": r"line 1, column 4: the alias \*b has no anchor before it",
    "a: &b [*b]": r"line 1, column 8: the alias \*b refers to itself",
    "a\n---\nb": "line 2, column 1: more than one document",
    "a: [": "line 2, column 1: not YAML: while parsing a flow node, did not find",
    "a: 'b": "not YAML: while scanning a quoted scalar",
    "\tx: 1": "line 1, column 1: not YAML",
    "%YAML 9.9\n---\na": "not YAML: found incompatible YAML document",
    "a: \x00": "line 1: not YAML: the character U[+]0000 is not allowed",
    "a: 1\nb: \x07": "line 2: not YAML: the character U[+]0007 is not allowed",
    "a: \ud800": "line 1: not YAML: a lone surrogate is not a character",
    "[" * 200: "line 1, column 101: not YAML: nested more than 100 levels deep",
    "- " * 200 + "a": "nested more than 100 levels deep",
    "[" * 100_000: "nest(ed|ing)",
}


@pytest.mark.parametrize("text", BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_what_cannot_be_read_is_one_kind_of_error_with_its_line(text: str) -> None:
    with pytest.raises(YamlDocumentError, match=BAD_VALUES[text]) as caught:
        parse_yaml(text)

    assert caught.value.line is not None
    assert len(str(caught.value)) < 200


def test_bytes_that_are_no_text_are_named_with_their_line() -> None:
    with pytest.raises(YamlDocumentError, match="line 2: not YAML: not utf-8: invalid start byte"):
        parse_yaml(b"a: 1\nb: \xff\xff")


def bomb(item: str) -> str:
    """Return a document whose last line expands to a billion values."""
    lines = [f"a0: &a0 {item}"]
    for number in range(1, 10):
        aliases = ", ".join([f"*a{number - 1}"] * 10)
        value = f"{{<<: [{aliases}]}}" if item.startswith("{") else f"[{aliases}]"
        lines.append(f"a{number}: &a{number} {value}")
    return "\n".join(lines)


@pytest.mark.parametrize("item", ["[x]", "{x: 1}"])
def test_aliases_that_expand_without_end_are_refused(item: str) -> None:
    with pytest.raises(YamlDocumentError, match="more than 2000000 values, counting each use"):
        parse_yaml(bomb(item))


def test_values_are_bounded_while_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_document, "MAX_NODES", 10)

    assert parse_yaml("[1, 2, 3, 4, 5, 6, 7, 8, 9]") == list(range(1, 10))
    with pytest.raises(YamlDocumentError, match="line 1, column 29: more than 10 values"):
        parse_yaml("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]")
    with pytest.raises(YamlDocumentError, match="longer than 4 bytes"):
        parse_yaml("a: 12", max_bytes=4)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.dates()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["<<", "=", "yes", "1:30", "0x1", "2024-01-05", "~", "- a", "{", "*a", "!a"])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(documents, st.booleans())
def test_what_pyyaml_writes_is_read_as_pyyaml_reads_it(document: object, flow: bool) -> None:
    text = yaml.safe_dump(document, default_flow_style=flow)

    assert parse_yaml(text) == yaml.safe_load(text) == document


@example("!\n0")  # PyYAML ignores a tag without a name.
@given(st.text(max_size=80) | st.text("ab0159.:-!&*<>{}[]?|'\"#%\n ~=_", max_size=80))
def test_no_text_raises_another_error_and_what_is_read_is_what_pyyaml_reads(text: str) -> None:
    try:
        document = parse_yaml(text)
    except YamlDocumentError:
        return
    try:
        theirs = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        assert "=" in text or "<<" in text  # Tags without a meaning to PyYAML, strings to us.
        return
    assert document == theirs or "nan" in text.lower()


@given(st.binary(max_size=80))
def test_no_bytes_raise_another_error(content: bytes) -> None:
    try:
        parse_yaml(content)
    except YamlDocumentError:
        return


def test_without_libyaml_the_same_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_document, "_Parser", yaml.SafeLoader)

    assert parse_yaml("a: [1, {b: c}]") == {"a": [1, {"b": "c"}]}
    for text, message in BAD_VALUES.items():
        if len(text) > 10_000:
            continue  # It takes seconds.
        if "not YAML" not in message:
            with pytest.raises(YamlDocumentError, match=message):
                parse_yaml(text)
        else:
            with pytest.raises(YamlDocumentError):
                parse_yaml(text)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"12345")

    assert read_file(path) == b"12345"
    assert read_file(path, max_bytes=5) == b"12345"
    with pytest.raises(YamlDocumentError, match=r"^is longer than 4 bytes$"):
        read_file(path, max_bytes=4)


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, message in {
        tmp_path / "missing": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        pipe: "cannot be read: it is not a regular file",
        Path("/dev/zero"): "cannot be read: it is not a regular file",
        Path("a\0b"): "cannot be read: embedded null byte",
    }.items():
        with pytest.raises(YamlDocumentError, match=message):
            read_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.touch(0o000)

    with pytest.raises(YamlDocumentError, match="cannot be read: Permission denied"):
        read_file(path)
