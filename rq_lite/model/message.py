"""A job as bytes and back: versioned JSON, checked at C speed by msgspec; docs/internals/protocol.md describes it.

An entry in Redis is that JSON, from the second attempt on with `<attempts>.<crashes>` in front: the scripts change
these counts, never the JSON. Between the counts and the JSON may be marks, for the scripts, in this order:
`@<priority>`, `#<id>` (the job is tracked), `*<workers that died while it ran>`, `!<mode>:<name>` (its lock),
`?<ms>` (when it expires), and those of newer versions. A job with marks that are not known here is parked. A
signature may follow the JSON (signing.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from rq_lite.errors import PayloadTooLarge
from rq_lite.model.names import NAME, encoded_id
from rq_lite.model.unreadable import UNREADABLE

Seal: TypeAlias = Callable[[str, bytes], bytes]  # from a queue's name and JSON: the JSON, signed if there is a secret
VERSION = 1
TAGGED = 2  # of a job with tags: a version that does not know these parks it, instead of burying it
VERSIONS = (VERSION, TAGGED)
ENDS = ("success", "failure", "done")  # when a callback is put
LONGEST_ID = 150  # of a callback's job
# The message of an item has no task: its one argument is the item, or this keyword holds it as base64 of a pickle.
ITEM = "pickle"
EXPIRED = 0  # in place of the time in the mark of a job that has expired
# Begin what may stand in front of an entry that is put, for `claim` of lib.lua.
FOR_EVER, FOR_A_TIME, REPLACES = b"f", b"t", b"r"
TUPLE = "tuple"  # of an item that was put as a tuple, and is a list in JSON
HEAD = re.compile(
    rb"(\d{1,9})\.(\d{1,9})(?:@([0-9a-z.+-]{1,30}))?(?:#([A-Za-z0-9_.:%-]{1,200}))?"
    rb"(?:\*(\d{1,9}))?(?:!([es]:[A-Za-z0-9_.:%-]{1,210}))?(?:\?(\d{1,15}))?([!$&,;=?^|~][A-Za-z0-9_.:%/!$&*,;=?^|~-]*)?\{"
)
SIGILS = re.compile(rb"[!$&*,;=?^|~]")
SIGNATURE = re.compile(rb"\}([0-9a-f]{64})\Z")


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The fields of the JSON.

    `timeout` (seconds) and `retries` are there only if the put overrides the task's value. `result_ttl`: for how many
    seconds the result is kept. `then`: the callbacks, as "success", "failure" or "done" to [queue, task]. `unique`: the
    mode and name of its lock, as in the mark. `expires`: when it does, ms since 1970. `tags`: words to find the job by;
    `v` is then TAGGED.
    """

    v: int
    id: str
    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    timeout: float | None = None
    retries: int | None = None
    result_ttl: float | None = None
    then: dict[str, list[str]] | None = None
    unique: str | None = None
    expires: int | None = None
    tags: tuple[str, ...] = ()


class Undecodable(ValueError):
    """Bytes that are no job of this version; the message says why."""

    said = "not a job"


class Newer(Undecodable):
    """A job of a newer version: it is parked, for a worker that knows it. `what` names what is not known here."""

    said = "newer"

    def __init__(self, what: str, more: str = "") -> None:
        super().__init__(f"{what}{more}, which this version of rq_lite does not know")
        self.what = what


class Head(NamedTuple):
    """What stands in front of a job's JSON."""

    attempts: int = 0
    crashes: int = 0
    at: int = 0  # where the JSON begins
    id: bytes | None = None  # of a tracked job, as `names.encoded_id` makes it
    priority: bytes | None = None
    unknown: bytes = b""  # marks that are not known here
    deaths: int = 0  # workers that died while it ran
    unique: bytes | None = None  # the mode and name of its lock
    expires: int | None = None  # when it does, ms since 1970; 0: it has


NO_HEAD = Head()


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode
_version = msgspec.json.Decoder(dict[str, Any]).decode


def decode(entry: bytes) -> tuple[Message, int, int, int]:
    """The message, and the counts in its head: attempts, crashes and deaths of workers, none among the others.

    The signature is not checked here: the broker's `opened` does that. Raises Undecodable.
    """
    head = None
    text = entry
    if entry[:1] != b"{":
        head = parsed(entry)
        if head.unknown:
            sigils = b" ".join(SIGILS.findall(head.unknown)).decode()
            raise Newer(f"marks {sigils}", f" ({head.unknown.decode():.100})")
        text = unsigned(entry[head.at :])
    try:
        message = _decode(text)
    except RecursionError:
        raise Undecodable("nested too deeply") from None
    except UNREADABLE as error:
        if SIGNATURE.search(text, max(0, len(text) - 65)):
            return decode(entry[:-64])
        raise misfit(text, error) from None
    if message.v != VERSION and message.v not in VERSIONS:
        raise of_version(message.v)
    if message.then is not None and not all(
        word in ENDS and len(to) == 2 and NAME.fullmatch(to[0]) for word, to in message.then.items()
    ):
        raise Undecodable(f"then: {message.then}; it must map {', '.join(ENDS)} to [queue, task]"[:300])
    if head is None:
        return message, 0, 0, 0
    # The marks are not signed, the JSON may be.
    if (head.unique or b"").decode() != (message.unique or "") or head.expires not in (message.expires, EXPIRED):
        raise Undecodable("its marks of a lock or an expiry are not those of its JSON")
    return message, head.attempts, head.crashes, head.deaths


def parse(entry: bytes) -> Head | None:
    """What stands in front of an entry's JSON, as `parse` of lib.lua reads it; None: it does not begin like a job."""
    if entry[:1] == b"{":
        return NO_HEAD
    match = HEAD.match(entry)
    if match is None:
        return None
    attempts, crashes, priority, job_id, deaths, unique, expires, unknown = match.groups()
    return Head(
        int(attempts), int(crashes), match.end() - 1, job_id, priority, unknown or b"", int(deaths or 0), unique,
        None if expires is None else int(expires),
    )  # fmt: skip


def parsed(entry: bytes) -> Head:
    """As `parse`; raises Undecodable."""
    head = parse(entry)
    if head is None:
        raise Undecodable("it does not begin like a job")
    return head


def split(entry: bytes) -> tuple[int, int, bytes]:
    """Attempts, crashes and the JSON alone: (2, 1, b"{…}") for `b"2.1{…}"`, also with marks or a signature."""
    head = parsed(entry)
    return head.attempts, head.crashes, unsigned(entry[head.at :])


def as_is(_queue: str, text: bytes) -> bytes:
    """Stands in for a seal, and for the check of a signature, where there is no secret."""
    return text


def unsigned(text: bytes) -> bytes:
    """The JSON without the signature that may follow it."""
    return text[:-64] if SIGNATURE.search(text, max(0, len(text) - 65)) else text


USUAL = re.compile(rb'[^{]*\{"v":[12],"id":"([^"\\]*)"')


def id_in(entry: bytes) -> str | None:
    """The id of a job, without decoding the rest if it begins as ours do; None if it is no job."""
    match = USUAL.match(entry)
    try:
        return match[1].decode() if match else decode(entry)[0].id
    except ValueError:  # Undecodable, or no UTF-8
        return None


def marked(
    entry: bytes,
    job_id: str,
    *,
    priority: float | None = None,
    tracked: bool = False,
    unique: str | None = None,
    expires: int | None = None,
) -> bytes:
    """The JSON with marks for the scripts in front of it; unchanged if it needs none."""
    if priority is None and not tracked:
        return entry
    marks = ("" if priority is None else f"@{priority!r}") + (f"#{encoded_id(job_id)}" if tracked else "")
    marks += ("" if unique is None else f"!{unique}") + ("" if expires is None else f"?{expires}")
    return b"0.0" + marks.encode() + entry


def version_of(fields: Mapping[str, Any]) -> int:
    """The version of a message with these fields, beside name and arguments."""
    return TAGGED if "tags" in fields else VERSION


def tags_of(entry: bytes) -> tuple[str, ...]:
    """The tags of a job; none if the entry is no job."""
    try:
        return decode(entry)[0].tags
    except Undecodable:
        return ()


def is_tracked(message: Message) -> bool:
    """Whether the job is tracked: its result is kept, or its end has more to do: callbacks, a lock, an expiry."""
    return (
        message.result_ttl is not None
        or bool(message.then)
        or message.unique is not None
        or message.expires is not None
    )


def has_expired(entry: bytes) -> bool:
    """Whether Redis has found that the job had expired when it was taken."""
    return parsed(entry).expires == EXPIRED


def is_claim(text: bytes) -> bool:
    """Whether a put of this entry needs a verdict: the job is unique, or expires."""
    if text[:1] in (FOR_EVER, FOR_A_TIME):
        return True
    head = text[: text.index(b"{")]
    return b"!" in head or b"?" in head


def bare(text: bytes) -> bytes:
    """The entry alone, without what a put says in front of it for `claim` of lib.lua."""
    kind = text[:1]
    if kind == FOR_EVER:
        return text[17:]
    if kind == REPLACES:
        return text.split(b" ", 2)[-1]
    return text.split(b" ", 4)[-1] if kind == FOR_A_TIME else text


def entry_of(
    message: Message,
    queue: str,
    seal: Seal | None = None,
    priority: float | None = None,
    most: int | None = None,
    plain: bool = False,
) -> bytes:
    """A message as an entry of this queue that was never taken: encoded, sealed, marked, and of at most `most` bytes.

    `plain`: it is known to have no fields that need marks. Raises PayloadTooLarge, and whatever the encoder raises for
    an argument.
    """
    entry = encode(message)
    if seal is not None:
        entry = seal(queue, entry)
    if priority is not None or (not plain and is_tracked(message)):
        entry = marked(
            entry, message.id, priority=priority, tracked=is_tracked(message), unique=message.unique,
            expires=message.expires,
        )  # fmt: skip
    if most is not None and len(entry) > most:
        raise too_large(message, queue, len(entry), most)
    return entry


def too_large(message: Message, queue: str, size: int, most: int) -> PayloadTooLarge:
    what = f"task {message.task}: the encoded job" if message.task else f"queue {queue!r}: the encoded item"
    return PayloadTooLarge(
        f"{what} has {size:,} bytes, max_payload is {most:,}; put large data elsewhere and its name into the "
        f"{'job' if message.task else 'queue'}"
    )


def offspring(job_id: str, word: str) -> str:
    """The id of a job's callback: always the same, and never longer than an id may be."""
    made = f"{job_id}.{word}"
    return made if len(made) <= LONGEST_ID else f"{hashlib.sha256(made.encode()).hexdigest()[:32]}.{word}"


def misfit(text: bytes, error: Exception) -> Undecodable:
    """Why a text is no message. The version is checked first: another version may have other fields."""
    try:
        version = _version(text).get("v")
    except UNREADABLE:
        return Undecodable(f"not JSON: {error}")
    return Undecodable(str(error)) if version in VERSIONS else of_version(version)


def of_version(version: object) -> Undecodable:
    """The error for a wrong version. A newer job is parked, not lost: a worker that knows it will come."""
    if isinstance(version, int) and version > TAGGED:
        return Newer(f"version {version}")
    return Undecodable(f"version {version!r}; this worker runs jobs of the versions {VERSION} to {TAGGED}")


def new_id(milliseconds: int | None = None) -> str:
    """The time of this call (ms since 1970, 11 hex digits) and 64 random bits: `18c2f3a4b5d-9f86d081884c7d65`."""
    return f"{time.time_ns() // 1_000_000 if milliseconds is None else milliseconds:011x}-{os.urandom(8).hex()}"


def made_at(job_id: str) -> float | None:
    """When the id was made: seconds since 1970 by the producer's clock, for people; None for an id of another form."""
    try:
        return int(job_id.partition("-")[0], 16) / 1000 if job_id[11:12] == "-" else None
    except ValueError:
        return None
