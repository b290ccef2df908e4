"""Adapters that are declared by patterns of names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.sources import AllowedSources, SourceError
from lora_router.adapters.templates import Template, check_template_source, is_pattern

ALLOWED = AllowedSources(["s3://lora"])


def template(*names: str) -> Template:
    return Template("llama", names, "s3://lora/{name}/latest")


def test_a_name_that_matches_is_an_adapter() -> None:
    assert template("tenant-*").adapter("tenant-7", ALLOWED) == DeclaredAdapter(
        "tenant-7", "llama", "s3://lora/tenant-7/latest", origin="template"
    )


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*", "a"),
        ("*-lora", "sql-lora"),
        ("a*b*c", "a-b-b-c"),
        ("*/lora-*", "acme/lora-1"),
        ("a*a", "aba"),
        ("*", "v1.2_x~y+z=1:2"),
    ],
)
def test_what_matches(pattern: str, name: str) -> None:
    assert is_pattern(pattern)
    assert template("no-*", pattern).matches(name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*-lora", "-lora"),
        ("a*a", "aa"),
        ("a*b*c", "a-c-b"),
        ("*", "acme/lora"),
        ("*/*", "../lora"),
        ("*/*", "acme/.."),
        (
            "*",
            "..",
        ),
        ("*", ".hidden"),
        ("*", "%2e%2e"),
        ("*", "a b"),
        ("*", "a@2"),
        ("*", "a{name}"),
        ("*", "ä"),
        ("*", "a\\b"),
        ("*", "a?b"),
        ("*", ""),
        ("*", "a" * 257),
    ],
)
def test_what_does_not(pattern: str, name: str) -> None:
    assert is_pattern(pattern)
    assert template(pattern).adapter(name, ALLOWED) is None


@pytest.mark.parametrize(
    "text", ["", "a", "**", "a/", "/*", "*//*", ".*", "*/.*", "a?*", "*" * 9, 7]
)
def test_what_is_no_pattern(text: object) -> None:
    assert not is_pattern(text)


@pytest.mark.parametrize(
    "source",
    ["s3://lora/x", "s3://{name}/x", "{name}://lora/x", "s3://lora/{name}/{x}", "s3://o/{name}"],
)
def test_a_source_must_have_the_name_in_its_path_below_a_prefix(source: str) -> None:
    with pytest.raises(SourceError):
        check_template_source(source, ALLOWED)
    check_template_source("s3://lora/{name}", ALLOWED)
    check_template_source("/a/{name}/x", AllowedSources(["/a"]))


def test_a_template_needs_a_prefix_even_in_the_operators_file() -> None:
    with pytest.raises(SourceError, match="adapter_sources, which is empty"):
        check_template_source("s3://lora/{name}", AllowedSources())


@given(
    st.lists(st.text(st.sampled_from("ab-"), max_size=3), min_size=2, max_size=5),
    st.text(st.sampled_from("ab-/"), max_size=12),
)
def test_an_asterisk_is_one_or_more_characters_of_a_segment(parts: list[str], name: str) -> None:
    pattern = "*".join(parts)
    if is_pattern(pattern):
        expected = re.fullmatch("[ab-]+".join(map(re.escape, parts)), name) is not None
        assert template(pattern).matches(name) == expected


@given(st.text())
def test_no_name_leads_anywhere_else(name: str) -> None:
    found = template("*", "*/*").adapter(name, ALLOWED)
    if found is not None:
        assert re.fullmatch(r"s3://lora/[A-Za-z0-9._~+=:/-]+/latest", found.source)
        assert ".." not in found.source.split("/")
