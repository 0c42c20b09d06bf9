"""The Lua scripts: read once, sent by their digest, loaded where Redis does not have them yet.

Each .lua file begins with its purpose, KEYS, ARGV, what it returns, whether it may run at maxmemory and which methods
call it. The loader puts in front of each only what it needs of `lib.lua`: Redis creates all functions again for every
call, which for the whole library takes as long as six commands. Every call declares, after its keys, the guard of each
queue that it touches.
"""

from __future__ import annotations

import enum
import re
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

from rq_lite.broker.keys import guarded
from rq_lite.broker.link import Link

FOLDER = Path(__file__).parent / "lua"
LIBRARY = "lib"
WORD = re.compile(r"\w+")


class Code(enum.IntEnum):
    """The first element of every script's reply; lib.lua begins with the same numbers."""

    OK = 0
    PART = 1  # there is more than fits in one answer: ask again
    STALE = -1  # this delivery, or this put, is no longer the caller's
    NOLEASE = -2  # the consumer has no lease: register first
    UNDECLARED = -3  # the queue has no bound yet: declare first
    MOVED = -4  # the feed is not where the caller left it
    ALIVE = -5  # the consumer's lease has not ended
    CLOSED = -6  # the queue was shut down: nothing more is put
    NEWER = -7  # the queue's entries may carry marks that this version does not know: it touches none


CODES = {code.value: code for code in Code}  # `Code(number)` takes two calls


class Script:
    """One script, for servers that know script flags (Redis 7 and newer) and for older ones."""

    def __init__(self, name: str, *, flags: bool) -> None:
        self.name = name
        body = with_library((FOLDER / f"{name}.lua").read_text("utf-8"))
        # Older servers let a script write at maxmemory once it has tried to remove something; ours begin with that.
        self.text = f"#!lua flags=allow-oom\n{body}" if flags and may_run_at_maxmemory(name) else body
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, link: Link, names: tuple[str, ...], *args: Any) -> Any:
        """The script's reply. A script that Redis does not have has not run: it is safe to send it again."""
        declared = guarded(names)
        try:
            return link.call("EVALSHA", self.digest, len(declared), *declared, *args)
        except NoScriptError:
            return link.call("EVAL", self.text, len(declared), *declared, *args)


@cache
def load(*, flags: bool) -> dict[str, Script]:
    """All scripts by name, as this server understands them."""
    return {name: Script(name, flags=flags) for name in names()}


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in FOLDER.glob("*.lua") if file.stem != LIBRARY))


@cache
def library() -> tuple[tuple[frozenset[str], str], ...]:
    """The paragraphs of `lib.lua`, each with the names it defines and its text without comments."""
    found = []
    for paragraph in (FOLDER / f"{LIBRARY}.lua").read_text("utf-8").split("\n\n"):
        text = uncommented(paragraph)
        if text:
            defined = re.match(r"local (?:function )?([\w, ]+)", text)
            found.append((frozenset(WORD.findall(defined[1] if defined else "")), text))
    return tuple(found)


def with_library(script: str) -> str:
    """The script, preceded by the paragraphs of `lib.lua` that it uses, directly or through others."""
    needed, parts = set(WORD.findall(uncommented(script))), [script]
    for defined, text in reversed(library()):  # a paragraph uses only earlier ones
        if defined & needed:
            needed.update(WORD.findall(text))
            parts.append(text)
    return "\n".join(reversed(parts))


def uncommented(text: str) -> str:
    return re.sub(r"^\s*--.*\n?", "", text, flags=re.MULTILINE).strip("\n")


def head(name: str) -> dict[str, str]:
    """The script's head: `purpose`, `KEYS`, `ARGV`, `returns`, `oom`, `callers`, each as one line of text."""
    parts: dict[str, str] = {}
    current = "purpose"
    for line in (FOLDER / f"{name}.lua").read_text("utf-8").splitlines():
        if not line.startswith("--"):
            break
        text = line[2:].strip()
        label = re.match(rf"({name}:|KEYS|ARGV|returns|oom|callers)\s+(.*)", text)
        if label:
            current = label[1].replace(f"{name}:", "purpose")
            text = label[2]
        parts[current] = f"{parts.get(current, '')} {text}".strip()
    return parts


def may_run_at_maxmemory(name: str) -> bool:
    return head(name)["oom"] == "allowed"
