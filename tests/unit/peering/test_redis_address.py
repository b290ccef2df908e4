"""Addresses of Valkey and Redis."""

import pytest

from lora_router.peering.redis_address import (
    CLUSTER,
    ONE,
    SENTINEL,
    AddressError,
    RedisAddress,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://cache", RedisAddress(ONE, False, (("cache", 6379),))),
        ("redis://cache:7000/3", RedisAddress(ONE, False, (("cache", 7000),), database=3)),
        ("rediss://[fd00::1]:7000", RedisAddress(ONE, True, (("fd00::1", 7000),))),
        (
            "redis://router:p%40ss@cache",
            RedisAddress(ONE, False, (("cache", 6379),), username="router", password="p@ss"),
        ),
        ("redis://:p@cache", RedisAddress(ONE, False, (("cache", 6379),), password="p")),
        (
            "redis+sentinel://a,b:26380/main/1",
            RedisAddress(SENTINEL, False, (("a", 26379), ("b", 26380)), "main", 1),
        ),
        (
            "rediss+cluster://a:1,b:2",
            RedisAddress(CLUSTER, True, (("a", 1), ("b", 2))),
        ),
    ],
)
def test_an_address_says_where_the_server_is(text: str, address: RedisAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "scheme"),
        ("http://cache", "scheme"),
        ("redis+other://cache", "scheme"),
        ("redis://", "host"),
        ("redis://a,b", "too many hosts"),
        ("redis+cluster://" + ",".join("abcdefghijklmnopq"), "too many hosts"),
        ("redis://cache:0", "port"),
        ("redis://cache:70000", "port"),
        ("redis://cache:00050000000", "port"),
        ("redis://cache:x", "port"),
        ("redis://fd00::1:6379", "brackets"),
        ("redis://cache/x", "number"),
        ("redis://cache/1/2", "too many parts"),
        ("redis+cluster://cache/1", "too many parts"),
        ("redis+sentinel://cache", "name of the master"),
        ("redis://cache?db=1", "query"),
        ("redis://[cache", "URL"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://me:hidden@cache/2", "redis://cache:6379/2"),
        ("rediss+sentinel://:hidden@a,b/main", "rediss+sentinel://a:26379,b:26379/main/0"),
        ("redis+cluster://:hidden@[fd00::1]", "redis+cluster://[fd00::1]:6379"),
    ],
)
def test_the_password_is_never_shown(text: str, shown: str) -> None:
    address = parse_address(text)

    assert str(address) == shown
    assert "hidden" not in f"{address} {address!r}"
