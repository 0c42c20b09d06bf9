"""The options behind the `?` of a Redis URL: which may be given, which are for other clients, which are refused.

A URL is often shared with other clients, so options that concern only how a client reads answers, or repeats what it
asks, are accepted and have no effect: rq_lite decides both by itself. docs/operations.md lists the options that count;
a test compares these tables with redis-py.
"""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

SHORTEST, LONGEST = 3.0, 3600.0  # seconds; a command may wait in Redis for 2 s


class UrlOption(NamedTuple):
    """An option that counts: what it takes, for people, and how its text is read (raises ValueError)."""

    takes: str
    read: Callable[[str], Any]


def natural(text: str) -> int:
    if not text.isdecimal():
        raise ValueError
    return int(text)


def seconds(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and least <= value <= LONGEST):
            raise ValueError
        return value

    return read


def boolean(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def file(text: str) -> str:
    if not os.access(text, os.R_OK):
        raise ValueError
    return text


def name_of_client(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError
    return text


def one_of(*words: str) -> UrlOption:
    return UrlOption(f"{', '.join(words[:-1])} or {words[-1]}", lambda text: words[words.index(text)])


def flags(text: str) -> list[ssl.VerifyFlags]:
    return [ssl.VerifyFlags[name.strip()] for name in text.strip("[]").split(",")]


def tls_version(text: str) -> ssl.TLSVersion:
    return ssl.TLSVersion(int(text))


TEXT = UrlOption("text", str)
BOOLEAN = UrlOption("true or false", boolean)
FILE = UrlOption("the name of a file that can be read", file)
FLAGS = UrlOption("names of ssl.VerifyFlags, separated by commas", flags)
ALLOWED = {
    "db": UrlOption("the number of a database", natural),
    "username": TEXT,
    "password": TEXT,
    "client_name": UrlOption("a name of ASCII characters without spaces", name_of_client),
    "socket_timeout": UrlOption(f"{SHORTEST:g} to {LONGEST:g} seconds", seconds(SHORTEST)),
    "socket_connect_timeout": UrlOption(f"0.01 to {LONGEST:g} seconds", seconds(0.01)),
    "socket_keepalive": BOOLEAN,
    "ssl_cert_reqs": one_of("none", "optional", "required"),
    "ssl_check_hostname": BOOLEAN,
    "ssl_ca_certs": FILE,
    "ssl_ca_path": TEXT,
    "ssl_ca_data": TEXT,
    "ssl_certfile": FILE,
    "ssl_keyfile": FILE,
    "ssl_password": TEXT,
    "ssl_ciphers": TEXT,
    "ssl_min_version": UrlOption("771 (TLS 1.2) or 772 (TLS 1.3)", tls_version),
    "ssl_include_verify_flags": FLAGS,
    "ssl_exclude_verify_flags": FLAGS,
}
NOT_FOR_SOCKETS = ("socket_keepalive",)  # of a file
OF_SENTINELS = ("sentinel_username", "sentinel_password")  # read in sentinel.py
IGNORED = frozenset({
    "protocol", "decode_responses", "encoding", "encoding_errors", "legacy_responses", "socket_read_size",
    "max_connections", "timeout", "retry_on_timeout", "retry_on_error", "health_check_interval", "lib_name",
    "lib_version",
})  # fmt: skip
BEFORE = "write it in front of the ?"
OBJECT = "it takes a Python object, which no URL can carry: leave it out"
OCSP = "rq_lite does not ask for OCSP: leave it out"
REFUSED = {
    **dict.fromkeys(("host", "port", "path"), BEFORE),
    **dict.fromkeys((
        "ssl_validate_ocsp", "ssl_validate_ocsp_stapled", "ssl_ocsp_context", "ssl_ocsp_expected_cert",
    ), OCSP),
    **dict.fromkeys((
        "cache", "cache_config", "cache_factory", "command_packer", "connection_class", "connection_kwargs",
        "credential_provider", "driver_info", "event_dispatcher", "himport_registry", "maint_notifications_config",
        "maint_notifications_pool_handler", "maintenance_notification_hash", "maintenance_state",
        "orig_host_address", "orig_socket_connect_timeout", "orig_socket_timeout",
        "oss_cluster_maint_notifications_handler", "parser", "parser_class", "queue_class", "redis_connect_func",
        "retry", "socket_keepalive_options", "socket_type",
    ), OBJECT),
}  # fmt: skip


def parsed(query: str) -> list[tuple[str, str]]:
    """The options with a value, as redis-py reads them: of an option that is given twice the first counts."""
    return parse_qsl(query)


def trouble_with(url: str) -> str | None:
    """What is wrong with the options of a URL that has no flaw, without a piece of a password; None: nothing."""
    scheme, (_, _, query) = url.partition("://")[0], url.partition("?")
    for name, text in parsed(query):
        if name in IGNORED or (name in OF_SENTINELS and scheme.endswith("+sentinel")):
            continue
        if name in REFUSED:
            return f"option {name!r}: {REFUSED[name]}"
        option = ALLOWED.get(name)
        if option is None or (scheme == "unix" and name in NOT_FOR_SOCKETS):
            return unknown(name, query)
        if name.startswith("ssl") and not scheme.startswith("rediss"):
            return unknown(name, "")
        try:
            option.read(text)
        except (ValueError, KeyError):
            return f"option {name!r} has a wrong value: it takes {option.takes}"
    given = dict(parsed(query))
    return "option 'ssl_keyfile' needs ssl_certfile" if "ssl_keyfile" in given and "ssl_certfile" not in given else None


def unknown(name: str, query: str) -> str:
    """Name the option, unless its name may be a piece of an unescaped password."""
    if "password=" in query or not re.fullmatch("[a-z_]+", name):
        return "an option in it is unknown"
    return f"unknown option {name!r}" + ("; TLS is rediss://" if name.startswith("ssl") else "")


def read(query: str) -> dict[str, Any]:
    """The options that count, of a URL without trouble, as redis-py's connections take them."""
    found: dict[str, Any] = {}
    for name, text in parsed(query):
        if name in ALLOWED and name not in found:
            found[name] = ALLOWED[name].read(text)
    return found
