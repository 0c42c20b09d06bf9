"""URLs of Redis Sentinel; with real sentinels: tests/chaos/test_t13_failover.py."""

from __future__ import annotations

from typing import Any

import pytest

from rq_lite.broker.address import Address
from rq_lite.broker.sentinel import Sentinels
from rq_lite.errors import UsageError


def urls(url: str) -> list[str]:
    """Those of the sentinels, then the primary's (whose host and port are filled in later)."""
    asked: list[str] = []

    def make(url: str, **options: Any) -> None:
        asked.append(url)

    Sentinels(url, make)
    return asked


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+sentinel://one/s", ["redis://one:26379/", "redis://primary:1/"]),
        (
            "rediss+sentinel://u:p%40@one,two:7000,[::1]:7001/s/3?ssl_ca_certs=/ca.pem",
            [
                "rediss://one:26379/?ssl_ca_certs=%2Fca.pem",
                "rediss://two:7000/?ssl_ca_certs=%2Fca.pem",
                "rediss://[::1]:7001/?ssl_ca_certs=%2Fca.pem",
                "rediss://u:p%40@primary:1/3?ssl_ca_certs=%2Fca.pem",
            ],
        ),
        (
            "redis+sentinel://:main@one/s?sentinel_username=who&sentinel_password=a%2Fb",
            ["redis://who:a%2Fb@one:26379/", "redis://:main@primary:1/"],
        ),
    ],
)
def test_sentinels_and_primary_have_their_urls(url: str, expected: list[str]) -> None:
    assert urls(url) == expected


@pytest.mark.parametrize("url", ["redis+sentinel://one", "redis+sentinel://one/", "redis+sentinel:///s"])
def test_a_url_without_a_service_or_sentinel_says_what_it_lacks(url: str) -> None:
    with pytest.raises(UsageError, match="name the sentinels and the service"):
        Address(url)


def test_a_database_is_a_number() -> None:
    with pytest.raises(UsageError, match="a database is a number"):
        Address("redis+sentinel://one/s/abc")


def test_the_passwords_are_not_shown() -> None:
    shown = Address("redis+sentinel://u:main@one,two/s?sentinel_password=own").shown
    assert shown == "redis+sentinel://***:***@one,two/s?sentinel_password=***"
