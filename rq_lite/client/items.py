"""Plain items as messages: what `Queue.put` carries beside tasks' jobs, checked like their arguments."""

from __future__ import annotations

import base64
import pickle
from typing import TYPE_CHECKING, Any

from rq_lite import checks
from rq_lite.client.job import Job
from rq_lite.errors import BadArgument, PayloadTooLarge, UsageError
from rq_lite.model.arguments import json_trouble, mended
from rq_lite.model.message import ITEM, VERSION, Message, entry_of, new_id

if TYPE_CHECKING:
    from rq_lite.client.queue import Queue

PLAIN = frozenset({str, int, bool, type(None)})


def encoded(queue: Queue, item: Any, priority: float | None, *, pickled: bool) -> bytes:
    """The item as bytes. Raises BadArgument, PayloadTooLarge, UsageError."""
    if pickled:
        check_secret(queue)
        message = Message(VERSION, new_id(), "", [], {ITEM: base64.b64encode(dumped(queue, item)).decode()})
    else:
        if type(item) not in PLAIN and (trouble := trouble_with(item)):
            raise BadArgument(f"queue {queue.name!r}: this item cannot be put: {trouble}")
        message = Message(VERSION, new_id(), "", [item])
    if priority is not None:
        priority = checks.priority(priority) or None  # 0 is what it counts as without one
    seal, most = queue.seal, queue.settings.max_payload
    try:
        return entry_of(message, queue.name, seal, priority=priority, most=most)
    except PayloadTooLarge:
        raise
    except Exception as error:
        raise BadArgument(f"queue {queue.name!r}: this item cannot be put: {error}") from None


def dumped(queue: Queue, item: Any) -> bytes:
    try:
        return pickle.dumps(item)
    except Exception as error:  # also whatever the item's own way to be pickled raises
        raise BadArgument(f"queue {queue.name!r}: this item cannot be pickled: {error}") from error


def trouble_with(item: Any) -> str | None:
    """Why the item would not arrive as it is; None if it will."""
    try:
        trouble = json_trouble(item)
    except RecursionError:
        return "it is nested too deeply, or contains itself"
    way_out = "put a list" if isinstance(item, tuple) else "put text, numbers, lists or dicts of these, or a task"
    return trouble and mended(trouble, f"; {way_out}")


def value(queue: Queue, message: Message, *, pickled: bool) -> Any:
    """The item, or the Job of a task. Raises UsageError for a pickled one where that is not allowed."""
    if message.task:
        return Job(id=message.id, queue=queue.name, task=message.task, args=tuple(message.args), kwargs=message.kwargs)
    if message.args:
        return message.args[0]
    if not pickled:
        raise UsageError(f"queue {queue.name!r}: its next item is pickled; Queue(..., pickle=True) reads such items")
    check_secret(queue)
    return pickle.loads(base64.b64decode(message.kwargs[ITEM]))


def check_secret(queue: Queue) -> None:
    if not getattr(queue.settings, "secret", None):
        raise UsageError(
            f"queue {queue.name!r}: pickle=True needs a secret (RQ_LITE_SECRET): a pickle can run anything where it is "
            "read, so only signed ones are"
        )
