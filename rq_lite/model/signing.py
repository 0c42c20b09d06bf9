"""Signatures: a worker with a secret never runs a job that was put without the secret. See docs/signing.md.

HMAC-SHA256 with a key of the secret, over the queue's name, a NUL, and the job's JSON: 64 hex digits that follow the
JSON. The head in front of it (attempts, crashes, marks) is not signed: scripts change it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from rq_lite.model.message import SIGNATURE, Undecodable, parse

UNSIGNED = "not signed (this worker has a secret; jobs must be put with it)"
UNFIT = "signature does not fit: altered, signed with another key, or for another queue"


class Refused(Undecodable):
    """An entry that no producer with the secret has put on this queue in this form; the message says why."""

    said = "refused"


class Signer:
    """Signs with the first of the keys, accepts all of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._begun: dict[str, list[hmac.HMAC]] = {}

    def seal(self, queue: str, text: bytes) -> bytes:
        """The job's JSON with its signature."""
        return text + self._digest(self._of(queue)[0], text)

    def opened(self, queue: str, entry: bytes) -> bytes:
        """An entry without its signature, if that fits; else raises Refused. Nothing else of the entry is checked."""
        head = parse(entry)
        if head is None:
            raise Refused(UNSIGNED)
        start = head.at
        match = SIGNATURE.search(entry, max(start, len(entry) - 65))
        if match is None:
            raise Refused(UNSIGNED)
        text, signature = entry[start : match.start() + 1], match[1]
        for begun in self._of(queue):
            if hmac.compare_digest(self._digest(begun, text), signature):
                return entry[: match.start() + 1]
        raise Refused(UNFIT)

    def _of(self, queue: str) -> list[hmac.HMAC]:
        """An HMAC begun with each key: to go on from it takes half the time of a new one."""
        begun = self._begun.get(queue)
        if begun is None:
            begun = self._begun[queue] = [hmac.new(key, queue.encode() + b"\0", "sha256") for key in self._keys]
        return begun

    def _digest(self, begun: hmac.HMAC, text: bytes) -> bytes:
        mac = begun.copy()
        mac.update(text)
        return mac.hexdigest().encode()
