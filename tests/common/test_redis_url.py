"""URLs of Redis: what is wrong with one is said, and no text of ours shows a password, whatever is wrong."""

from __future__ import annotations

import inspect
import os
import re
import ssl
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from rq_lite import Broker, Queue, Settings
from rq_lite.broker import url_options
from rq_lite.broker.address import Address
from rq_lite.broker.transient import explained
from rq_lite.cli import main
from rq_lite.consumer.offload.channel import Setup
from rq_lite.demo.facts import Choices
from rq_lite.errors import UsageError
from rq_lite.process.protocol import ConsumerConfig
from rq_lite.redis_url import flaw, redact, redacted, secrets_of
from rq_lite.settings import load_settings

OPTION = "unknown option 'ssl'; TLS is rediss://"
DATABASE = "a database is a number, as in redis://localhost:6379/0"
TIMES = "has a wrong value: it takes 3 to 3600 seconds"
REQUIRED = "option 'ssl_cert_reqs' has a wrong value: it takes none, optional or required"
FILE = "has a wrong value: it takes the name of a file that can be read"
SERVICE = "name the sentinels and the service, as in redis+sentinel://host1,host2,host3/mymaster"
ESCAPE = "it cannot be read; escape what is special in the password (/ as %2F, @ as %40)"
BEGIN = "begin it with redis://, rediss://, unix:// or redis+sentinel://"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://localhost/abc", DATABASE),
        ("redis://localhost/1/2", DATABASE),
        ("redis://:key@localhost/abc", DATABASE),
        ("redis+sentinel://one/s/abc", DATABASE),
        ("redis+sentinel://one", SERVICE),
        ("redis+sentinel://one,/s", SERVICE),
        ("redis://localhost?ssl=true", OPTION),
        ("rediss://:key@localhost/0?ssl=true", OPTION),
        ("redis://localhost?colour=red", "unknown option 'colour'"),
        ("redis://localhost?socket_timeout=long", f"option 'socket_timeout' {TIMES}"),
        ("redis://localhost?socket_timeout=1", f"option 'socket_timeout' {TIMES}"),
        ("redis+sentinel://one/s?socket_timeout=inf", f"option 'socket_timeout' {TIMES}"),
        ("unix:///s?db=-1", "option 'db' has a wrong value: it takes the number of a database"),
        ("unix:///s?socket_keepalive=yes", "unknown option 'socket_keepalive'"),
        ("redis://localhost?password=key&colour=red", "an option in it is unknown"),
        ("redis://localhost?sentinel_username=u", "unknown option 'sentinel_username'"),
        ("rediss://localhost?ssl_cert_reqs=often", REQUIRED),
        ("rediss+sentinel://one/s?ssl_cert_reqs=often", REQUIRED),
        (
            "rediss://localhost?ssl_min_version=3",
            "option 'ssl_min_version' has a wrong value: it takes 771 (TLS 1.2) or 772 (TLS 1.3)",
        ),
        ("rediss://localhost?ssl_ca_certs=/no/such.pem", f"option 'ssl_ca_certs' {FILE}"),
        (f"rediss://localhost?ssl_keyfile={__file__}", "option 'ssl_keyfile' needs ssl_certfile"),
        ("redis://localhost?host=other", "option 'host': write it in front of the ?"),
        ("redis://localhost?retry=3", "option 'retry': it takes a Python object, which no URL can carry: leave it out"),
        ("redis-sentinel://:key@h/0", BEGIN),
        ("REDIS://h", BEGIN),
        ("redis:/h", BEGIN),
        ("localhost:6379", BEGIN),
        ("redis://:half/half@h", ESCAPE),
        ("redis://:half#half@h", ESCAPE),
        ("redis://half?half@h", ESCAPE),
        ("redis://half?half=x@h", ESCAPE),
        ("redis://:key", "it cannot be read; write it as in redis://:PASSWORD@localhost:6379/0"),
        ("redis://h:99999", "it cannot be read; write it as in redis://:PASSWORD@localhost:6379/0"),
        ("redis://a..b", "it cannot be read; write it as in redis://:PASSWORD@localhost:6379/0"),
        ("unix://redis.sock", "it cannot be read; write it as in redis://:PASSWORD@localhost:6379/0"),
        ("redis://:key@h/0\n", "a line end, or another control character, is in it"),
        (os.fsdecode(b"redis://:\xff@h"), ESCAPE),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address(url)
    assert str(caught.value) == f"Redis URL {redact(url)!r}: {reason}"
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://"),
        ("redis://key@host", "redis://***@host"),
        ("redis://:key@host/0", "redis://:***@host/0"),
        ("redis://user:key@host", "redis://***:***@host"),
        ("redis://:k@e@y@host", "redis://:***@host"),
        ("redis://:k y@host", "redis://:***@host"),
        ("redis://:key@[fe80::1%25eth0]:1/0", "redis://:***@[fe80::1%25eth0]:1/0"),
        ("rediss://host:6380/1/", "rediss://host:6380/1/"),
        ("redis://host/0?password=k@y&db=3&socket_timeout=9", "redis://host/0?password=***&db=3&***"),
        ("unix:///run/redis.sock?db=15", "unix:///run/redis.sock?db=15"),
        ("unix://:key@/run/redis.sock", "unix://:***@/run/redis.sock"),
        ("unix:///run/redis@main/redis.sock?password=key@", "unix:///***@main/redis.sock?password=***"),
        ("unix:///tmp/a%40b/redis.sock", "unix:///***%40b/redis.sock"),
        ("redis+sentinel://u:key@a,b:1/s/1", "redis+sentinel://***:***@a,b:1/s/1"),
    ],
)
def test_of_a_good_url_all_but_the_password_is_shown(url: str, shown: str) -> None:
    assert flaw(url) is None
    assert (redact(url), repr(Address(url)), Address(url).shown) == (shown, f"Address({shown!r})", shown)
    assert (repr(Broker(url)), repr(Broker())) == (f"Broker({shown!r})", "Broker()")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://key/with@host/0", "redis://***"),
        ("redis-sentinel://:key@host", "redis-sentinel://***"),
        ("REDIS://:key@host", "REDIS://***"),
        ("redis:/:key@host", "redis://***"),
        ("key@host", "***"),
        (" redis://:key@host", "***"),
        ("key://host", "***"),
    ],
)
def test_of_a_url_with_a_flaw_hardly_anything_is_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


# -- options


def known_to_redis_py() -> set[str]:
    """All names that redis-py may take from a URL's query: they become arguments of the pool and its connections."""
    kinds = (redis.ConnectionPool, redis.BlockingConnectionPool, redis.SSLConnection, redis.UnixDomainSocketConnection)
    classes = {base for kind in kinds for base in kind.__mro__ if "__init__" in vars(base) and base is not object}
    found = {p for base in classes for p in inspect.signature(vars(base)["__init__"]).parameters}
    return (found | {*URL_QUERY_ARGUMENT_PARSERS}) - {"self", "args", "kwargs", "connection_kwargs"}


def test_each_option_of_redis_py_is_allowed_ignored_or_refused() -> None:
    ours = [*url_options.ALLOWED, *url_options.IGNORED, *url_options.REFUSED]
    assert known_to_redis_py() - {*ours} == set()
    assert len(ours) == len({*ours})


VALUES = {"db": "3", "ssl_min_version": "772", "ssl_cert_reqs": "none", "ssl_ca_certs": __file__,
          "ssl_certfile": __file__, "ssl_keyfile": f"{__file__}&ssl_certfile={__file__}", "ssl_check_hostname": "no",
          "ssl_include_verify_flags": "VERIFY_X509_STRICT", "ssl_exclude_verify_flags": "[VERIFY_X509_STRICT]",
          "socket_keepalive": "False", "socket_timeout": "7", "socket_connect_timeout": "0.5"}  # fmt: skip
URLS = ("redis://h", "rediss://h", "unix:///s", "redis+sentinel://one/m", "rediss+sentinel://one/m")


@pytest.mark.parametrize("name", [*url_options.ALLOWED])
@pytest.mark.parametrize("url", URLS)
def test_an_option_that_may_be_given_counts_for_every_kind_of_url(url: str, name: str) -> None:
    value = VALUES.get(name, "text")
    if (url[:4] == "unix" and name == "socket_keepalive") or (name[:3] == "ssl" and url[:6] != "rediss"):
        with pytest.raises(UsageError, match=f"unknown option '{name}'"):
            Address(f"{url}?{name}={value}")
        return
    first = value.partition("&")[0]
    made = Address(f"{url}?{name}={value}").connection()
    attribute = {"ssl_password": "certificate_password"}.get(name, name)
    kept = getattr(made, attribute) if hasattr(made, attribute) else getattr(made, attribute.removeprefix("ssl_"))
    assert kept == (ssl.CERT_NONE if name == "ssl_cert_reqs" else url_options.ALLOWED[name].read(first))


@pytest.mark.parametrize("url", URLS)
def test_an_option_that_rq_lite_decides_changes_no_connection(url: str) -> None:
    def shown(connection: Any) -> dict[str, str]:
        return {name: re.sub("0x[0-9a-f]+", "", str(value)) for name, value in vars(connection).items()}

    options = "&".join(f"{name}=3" for name in sorted(url_options.IGNORED))
    assert shown(Address(f"{url}?{options}").connection()) == shown(Address(url).connection())


def test_a_url_that_other_clients_share_works(broker: Broker) -> None:
    options = "decode_responses=True&protocol=3&encoding=latin-1&max_connections=1&health_check_interval=1&timeout=1"
    queue = Queue("q", broker=Broker(f"{broker.url}?{options}"))
    queue.put("é")
    assert (queue.get(), queue.qsize()) == ("é", 0)


def test_sentinels_are_asked_within_a_second_whatever_the_url_says() -> None:
    address = Address("redis+sentinel://one/m?socket_timeout=60&socket_connect_timeout=60")
    assert address._sentinels is not None
    (asked,) = [pool.make_connection() for pool in address._sentinels._sentinels]
    assert (asked.socket_timeout, asked.socket_connect_timeout) == (1.0, 1.0)
    assert (address.connection().socket_timeout, address.connection().socket_connect_timeout) == (60.0, 60.0)


@pytest.mark.parametrize("name", [*url_options.ALLOWED, *url_options.OF_SENTINELS])
def test_the_options_that_count_are_documented(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"`{name}`" in page


# -- passwords

HEAD, TAIL = "S3c", "r3t"  # of every password; neither may be seen, either
MIDDLE = st.text(st.sampled_from("ab/@:?#&=%[]+,;. \n\t'\"\\*é℀\udcff"), max_size=6)
HERE = "127.0.0.1:1"  # where nothing listens
FORMS = (
    # good ones, at least where the password is escaped
    "redis://:{}@H", "redis://{}@H", "redis://u:{}@H/0", "redis://{}:@H", "rediss://:{}@H/0", "redis://:{}@[::1]:1/0",
    "unix://:{}@/tmp/nowhere.sock", "unix://{}@/tmp/nowhere.sock", "unix:///tmp/nowhere.sock?password={}",
    "redis://H/0?password={}", "redis://H?db=1&password={}&socket_timeout=9", "redis://H/0?username=u&password={}",
    "redis+sentinel://:{}@H,H/m", "redis+sentinel://H/m?sentinel_password={}", "rediss+sentinel://u:{}@H/m/1",
    # schemes
    "redis-sentinel://:{}@H/0", "REDIS://:{}@H", "Rediss://u:{}@H", "UNIX://:{}@/tmp/x", "valkey://:{}@H", "://:{}@H",
    "redis:/:{}@H", "redis::{}@H", "redis:///:{}@H", "redis//:{}@H", ":{}@H", "u:{}@H", "{}@H", "//:{}@H", "{}", ":{}",
    "redis://redis://:{}@H", "redis+sentinel:/:{}@H/m", "tcp://u:{}@H", "http://:{}@H", "{}://H", "redis+{}://H",
    # what is around, and missing
    " redis://:{}@H", "redis://:{}@H ", "redis://:{}@H\n", "\tredis://:{}@H", "'redis://:{}@H'", '"redis://:{}@H"',
    "redis://:{} @H", "redis:// :{}@H", "redis://\n:{}@H", "RQ_LITE_URL=redis://:{}@H", "<redis://:{}@H>",
    "redis://@:{}@H", "redis://u@h:{}@H", "redis://:{}@@H", "redis://:{}@", "redis://:{}", "redis://u:{}", "redis://H:{}",
    "redis://H/{}", "redis://H/0/{}", "redis://:{}@H/{}", "redis://[:{}@H", "redis://:{}]@H", "redis://[{}]", "redis://[{}]@H",
    "redis://:{}@H:port", "redis://:{}@H:99999", "redis://:{}@H/abc", "redis://:{}@a..b", "redis://:{}@H,H",
    "unix:///:{}@/tmp/x", "unix:///{}@/tmp/x", "unix:////{}@tmp/x", "unix://:{}/tmp/x", "unix://u:{}/tmp/x", "unix://:{}@",
    "unix://:{}@tmp/x", "unix://:{}@/run/a@b.sock", "redis+sentinel://:{}@/m", "redis+sentinel://:{}@H", "redis+sentinel://:{}/m",
    "redis+sentinel://:{}@H/m/abc", "redis+sentinel://u:{}@H,:1/m", "redis+sentinel://H/m?sentinel_username=u&sentinel_password={}&x=1",
    # options
    "redis://H/0?password={}&colour=red", "redis://H/0?PASSWORD={}", "redis://H/0?pasword={}", "redis://H/0?{}", "redis://H/0?{}=1",
    "redis://H/0?db={}", "redis://H/0?password={}&db=x", "redis://H?password={}#x", "redis://H#{}", "redis://H;password={}",
    "redis://H/0?socket_timeout={}", "rediss://H/0?ssl_cert_reqs={}", "rediss://H/0?ssl_password={}", "redis://H/0?password=x@{}",
    "redis://:x@H/0?password={}", "redis://H/0??password={}", "redis://H/?a=b?password={}", "redis://H/0&password={}",
)  # fmt: skip


def texts_of(error: BaseException | None) -> Iterator[str]:
    """All that an exception may show of itself, and those that hang on it."""
    if error is not None:
        yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
        yield from traceback.format_exception(error)
        yield from texts_of(error.__cause__)
        yield from texts_of(error.__context__)


def texts_about(url: str) -> Iterator[str]:
    """What rq_lite says of a URL without asking Redis."""
    yield redact(url)
    chosen = Settings(url=url)
    yield from (repr(chosen), repr(chosen.__rich_repr__()), str(chosen))
    yield repr(ConsumerConfig(settings=chosen, app="a", queues={}, strict=False, verbose=False, number=1, parent=1))
    yield repr(Setup(settings=chosen, app="a", number=1, queues=[]))
    yield repr(Choices(jobs=1, maxsize=1, delay=1, procs=1, greenlets=1, url=url))
    # Another setting's value is told from a URL by what only a URL has in it.
    others = ("WAIT", "GREENLETS") if re.search("[:@/=]", url) else ()
    for variable in ("URL", "SECRET", *others):
        try:
            yield repr(load_settings(environ={f"RQ_LITE_{variable}": url}, folder=Path("/")))
        except UsageError as error:
            yield from texts_of(error)
    for name in ("url", "secret", "maxsize"):
        try:
            load_settings({name: [url]}, environ={}, folder=Path("/"))
        except UsageError as error:
            yield from texts_of(error)
    try:
        address = Address(url)
    except UsageError as error:
        yield from texts_of(error)
        return
    broker = Broker(url, settings=chosen)
    yield from (repr(address), str(address), repr(broker), repr(Queue("q", broker=broker)), repr(broker.link))
    for password in secrets_of(url):
        for told in (redis.ResponseError, redis.AuthenticationError, redis.ConnectionError, OSError):
            yield from texts_of(explained(told(f"unknown command 'AUTH', with args: '{password}'"), address))


def check(form: str, password: str, escaped: bool) -> None:
    written = quote(password, "", errors="replace") if escaped else password
    url = form.replace("{}", written).replace("H", HERE if "," not in form else "127.0.0.1")
    # What stands behind the @ of redis://:S3c@r3t is a host, as far as anybody can tell.
    pieces = () if "@" in written and "@" not in form else (HEAD, TAIL)
    for text in texts_about(url):
        for piece in (password, quote(password, "", errors="replace"), *pieces):
            assert piece not in text, (url, text)


@settings(max_examples=150)
@given(st.sampled_from(FORMS), MIDDLE, st.booleans())
@example("redis-sentinel://:{}@H/0", "retPassw0", False)
def test_no_text_shows_a_password_whatever_is_wrong_with_the_url(form: str, middle: str, escaped: bool) -> None:
    check(form, HEAD + middle + TAIL, escaped)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("middle", ["", "a/b@%41"])
def test_of_every_form(form: str, middle: str) -> None:
    for escaped in (False, True):
        check(form, HEAD + middle + TAIL, escaped)


Said = Callable[..., tuple[object, str]]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs a command in this process, with this URL in the environment: how it ends, and all that it says."""
    monkeypatch.setenv("RQ_LITE_PATIENCE", "0")

    def run(url: str, *arguments: str) -> tuple[object, str]:
        monkeypatch.setenv("RQ_LITE_URL", url)
        with pytest.raises(SystemExit) as left:
            main([*arguments])
        out, err = capfd.readouterr()
        return left.value.code, out + err + caplog.text

    return run


@pytest.mark.parametrize("form", FORMS)
def test_no_command_says_it(form: str, said: Said) -> None:
    password = HEAD + "/@" + TAIL
    url = form.replace("{}", password).replace("H", HERE if "," not in form else "127.0.0.1")
    code, text = said(url, "status")
    assert code in (2, 3)
    assert text.startswith("rq-lite: Redis ")
    assert password not in text


PUT = ("produce", "--task", "workers.tickets:buy", "--count", "1")


@pytest.mark.parametrize("arguments", [PUT, ("health",), ("dead", "list"), ("jobs", "list", "--json")])
def test_no_other_command_does_nor_for_an_option(arguments: tuple[str, ...], said: Said) -> None:
    for form in ("redis-sentinel://:{}@h/0", f"redis://:{{}}@{HERE}", "redis://H/0?password={}&colour=red"):
        url = form.replace("{}", HEAD + TAIL)
        for code, text in (said(url, *arguments), said("redis://h", *arguments, "--url", url)):
            assert code in (1, 2, 3)
            assert HEAD not in text


@pytest.mark.parametrize("url", ["redis://:{}@h/0", "unix://:{}@/tmp/x", "REDIS://u:{}@h", "redis+sentinel://:{}@h/m"])
def test_a_url_in_the_place_of_a_name_is_not_said_again(url: str, said: Said) -> None:
    url = url.replace("{}", HEAD + TAIL)
    lines = (
        [url], ["status", "--nope", url], ["health", url], ["produce", "--count", url], ["dead", url],
        ["queue", "set", "q", url], ["schedule", "add", "s", "--task", url, "--every", "1s"],
    )  # fmt: skip
    for arguments in lines:
        code, text = said(f"redis://{HERE}", *arguments)
        assert (code in (2, 3), text != "") == (True, True)
        assert HEAD not in text, text


def test_other_words_than_urls_are_said_as_they_are() -> None:
    for text in ("task app:mail: 'me@example.org' is no number", "Redis URL 'redis://***': escape @ as %40", "a: b@c"):
        assert redacted(text) == text
    assert redacted("no 'redis://:S3c r@t@h/0', only a@b") == "no 'redis://***@h/0', only a@b"
    assert redacted("(redis://:S3c@h?password=r3t)") == "(redis://***@h?password=***"
