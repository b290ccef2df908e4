"""From where pods may load adapters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters.sources import AllowedSources, SourceError, check_prefix

PREFIXES = AllowedSources(
    ["s3://lora/team", "/srv/adapters/", "huggingface://acme", "https://hub/"]
)


def allows(source: str, origin: str = "template", sources: AllowedSources = PREFIXES) -> bool:
    try:
        sources.check(source, origin)
    except SourceError:
        return False
    return True


@pytest.mark.parametrize(
    "source",
    [
        "s3://lora/team",
        "s3://lora/team/a",
        "S3://LORA/team/a/b/",
        "/srv/adapters/a",
        "huggingface://acme/sql-lora",
        "https://hub:443/a.tar",
    ],
)
def test_a_source_below_a_prefix_is_allowed(source: str) -> None:
    assert allows(source)


@pytest.mark.parametrize(
    "source",
    [
        "s3://lora/team-b/a",
        "s3://lora/Team/a",
        "s3://lora/team/../other",
        "s3://lora/team/./a",
        "s3://lora/team//a",
        "s3://lora/team/%2e%2e/other",
        "s3://lora/team/a?versionId=1",
        "s3://lora/team/a#b",
        "s3://lora/team\\..\\other",
        "s3://lora@evil/team/a",
        "s3://evil/lora/team/a",
        "http://hub/a",
        "https://hub:8443/a",
        "https:///hub/a",
        "srv/adapters/a",
        "//srv/adapters/a",
        "/srv/adapters/a\u0000",
        "/srv/adapters/\u2024\u2024/a",
        "",
        " ",
        "/srv/adapters/" + "a" * 2048,
    ],
)
def test_a_source_that_is_elsewhere_or_may_lead_elsewhere_is_not(source: str) -> None:
    assert not allows(source)
    assert not allows(source, "file"), "the operator's file too, once there are prefixes"


def test_without_prefixes_only_the_operators_file_names_sources() -> None:
    none = AllowedSources()
    assert allows("s3://any/where?versionId=1", "file", none)
    assert not allows("s3://any/where", "template", none)
    assert not allows("s3://any/where", "model-adapter ns/a", none)


def test_a_prefix_without_a_host_allows_all_of_its_scheme() -> None:
    assert allows("s3://any/where", sources=AllowedSources(["s3://"]))
    assert not allows("https://any/where", sources=AllowedSources(["s3://"]))


def test_the_error_names_the_prefixes() -> None:
    with pytest.raises(SourceError, match=r"adapter_sources: s3://lora/team, /srv/adapters/, "):
        PREFIXES.check("/etc/passwd", "file")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "s3://lora/../x",
        "s3://u:p@host/a",
        "/a/%41",
        "/a//b",
        "http://:80",
        "https://:443/a",
    ],
)
def test_a_prefix_that_leaves_room_for_tricks_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        check_prefix(text)


@given(st.text(st.sampled_from("./%2eE\\lora:@?#s3"), max_size=12))
def test_whatever_follows_a_prefix_stays_below_it(rest: str) -> None:
    if allows("s3://lora/team/" + rest):
        assert not {".", "..", ""} & set(rest.removesuffix("/").split("/")) or not rest
        assert not set("%\\?#@") & set(rest) - {"@"}
