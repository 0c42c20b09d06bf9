"""URLs of Redis: what is wrong with one, and how it is shown. rq_lite shows no URL that has not been through `redact`.

    redis[s]://[[user]:password@][host][:port][/db][?option=value&…]
    unix://[[user]:password@]/path[?option=value&…]
    redis[s]+sentinel://[[user]:password@]host[:port][,host2[:port] …]/service[/db][?option=value&…]

In a URL of any other form every part may be the password: then no more than its scheme is shown. Of a URL of these
forms only known parts are shown: hosts, database, path, the names of options that are known here.
"""

from __future__ import annotations

import contextlib
import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)
BEGIN = "begin it with redis://, rediss://, unix:// or redis+sentinel://"
UNREADABLE = "it cannot be read; escape what is special in the password (/ as %2F, @ as %40)"
UNLIKE = "it cannot be read; write it as in redis://:PASSWORD@localhost:6379/0"
CONTROL = "a line end, or another control character, is in it"
DATABASE = "a database is a number, as in redis://localhost:6379/0"
NO_SERVICE = "name the sentinels and the service, as in redis+sentinel://host1,host2,host3/mymaster"

HOST = r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.%-]+)?\]|[\w.-]+)?(?::\d{1,5})?"
# Behind the host, an @ that is not escaped can only be part of a password.
OPTION = r"(?:\w*(?:password|username)=[^#&]*|\w+=[^#&@]*|)"
SHAPE = re.compile(
    rf"(?P<scheme>{'|'.join(map(re.escape, SCHEMES))})://(?:(?P<login>[^/?#]*)@)?(?P<hosts>{HOST}(?:,{HOST})*)"
    rf"(?P<path>/(?:(?<=unix:///)[^?#]*|(?<!unix:///)[^?#@]*))?(?:\?(?P<query>{OPTION}(?:&{OPTION})*))?"
)
# What people write as a scheme; other text in its place may be anything, also a password.
LIKELY = re.compile(
    r"(?i)((?:rediss?|valkeys?|unix|tcp|https?|sentinel)(?:[+-](?:sentinel|socket|cluster|tls|ssl|unix))?):"
)
BEFORE_AT = re.compile(r"^/(.+)(?=@|%40)")  # in a socket's path: it may be a password in the wrong place
NAMES = ("db", "username", "password", "sentinel_username", "sentinel_password")
# In a text: up to the last @ within the quotes around it, or else before white space.
BEGUN = r"(?:rediss?|valkeys?|unix|sentinel)[\w+-]*:/*"
IN_TEXT = re.compile(rf"(?i)(?:(?<=['\"])({BEGUN})([^'\"]*)|\b({BEGUN})(\S*))@")


def flaw(url: str) -> str | None:
    """What is wrong with the URL as it is written, in words without a piece of it; None: nothing."""
    if url.partition("://")[0] not in SCHEMES:
        return BEGIN
    if re.search(r"[\x00-\x1f\x7f]", url):
        return CONTROL
    found = SHAPE.fullmatch(url)
    if found is None or not has_hosts(url):
        return UNREADABLE if "@" in url else UNLIKE
    path = found["path"] or ""
    if found["scheme"] in SENTINEL_SCHEMES:
        service = re.fullmatch(r"/([\w.-]+)(/.*)?", path)
        if service is None or not all(re.match(r"[^:]", host) for host in found["hosts"].split(",")):
            return NO_SERVICE
        path = service[2] or ""
    elif "," in found["hosts"] or (found["scheme"] == "unix" and (found["hosts"] or not path)):
        return UNREADABLE if "@" in url else UNLIKE
    if found["scheme"] != "unix" and not re.fullmatch(r"(/[0-9]*)?/?", path):
        return DATABASE  # redis-py would use database 0 for /abc, and 12 for /1/2
    return None


def has_hosts(url: str) -> bool:
    """Whether the standard library agrees about where the hosts begin and end, and a resolver can be asked for them."""
    with contextlib.suppress(ValueError):  # also UnicodeError; it holds pieces of the URL
        for host in urlsplit(url).netloc.rpartition("@")[2].split(","):
            parts = urlsplit(f"//{host}")
            (parts.hostname or "").encode("idna")
            _ = parts.port
        url.encode()
        return True
    return False


def redact(url: str) -> str:
    """The URL without its passwords, for people. Of one that has a flaw hardly anything is shown."""
    found = SHAPE.fullmatch(url)
    if found is None or flaw(url) is not None:
        likely = LIKELY.match(url)
        return f"{likely[1]}://***" if likely else "***"
    user, colon, _ = (found["login"] or "").partition(":")
    login = "" if found["login"] is None else ("***" if user else "") + (":***" if colon else "") + "@"
    query = "" if found["query"] is None else "?" + "&".join(map(shown_option, found["query"].split("&")))
    path = BEFORE_AT.sub("/***", found["path"] or "")
    return f"{found['scheme']}://{login}{found['hosts']}{path}{query}"


def shown_option(option: str) -> str:
    name, _, value = option.partition("=")
    if name == "db" and value.isdecimal():
        return option
    return f"{name}=***" if name in NAMES else "***"


def redacted(text: str) -> str:
    """A text from a command line or a file without the passwords of any URLs of Redis in it."""

    def hide(found: re.Match[str]) -> str:
        begun, login = (found[1], found[2]) if found[1] else (found[3], found[4])
        return found[0] if set(login) <= {"*", ":"} or login == ":PASSWORD" else f"{begun}***@"

    return re.sub(r"(?i)(password=)[^\s&'\"]*", r"\1***", IN_TEXT.sub(hide, text))


def secrets_of(url: str) -> list[str]:
    """Each password in a URL without a flaw, as it is and as the URL escapes it; the longest first."""
    found = SHAPE.fullmatch(url)
    if found is None:
        return []
    user, _, password = (found["login"] or "").partition(":")
    query = found["query"] or ""
    written = [found["login"] or "", password or user, *BEFORE_AT.findall(found["path"] or "")]
    written += [option.partition("=")[2] for option in query.split("&") if "password=" in option]
    meant = [value for name, value in parse_qsl(query) if name.endswith("password")]
    return sorted({*written, *map(unquote, written), *meant} - {""}, key=len, reverse=True)


def with_database(url: str, number: int) -> str:
    """The URL, which has no flaw, with another database of the same Redis."""
    found = SHAPE.fullmatch(url)
    if found is None:
        return url
    options = [(name, value) for name, value in parse_qsl(found["query"] or "", keep_blank_values=True) if name != "db"]
    path = found["path"] or ""
    if found["scheme"] == "unix":
        options.append(("db", str(number)))
    else:
        path = (f"/{path.split('/')[1]}" if found["scheme"] in SENTINEL_SCHEMES else "") + f"/{number}"
    login = "" if found["login"] is None else f"{found['login']}@"
    return f"{found['scheme']}://{login}{found['hosts']}{path}" + (f"?{urlencode(options)}" if options else "")
