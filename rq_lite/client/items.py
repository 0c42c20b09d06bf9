"""Plain items as messages: what `Queue.put` carries, checked like the arguments of tasks."""

from __future__ import annotations

import base64
import math
import pickle
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from rq_lite import checks
from rq_lite.checks import number
from rq_lite.client import leases
from rq_lite.client.batches import each_of
from rq_lite.client.get import Closed, Getter
from rq_lite.client.job import Job
from rq_lite.client.put import Sender
from rq_lite.client.shelf import Delivery
from rq_lite.errors import BadArgument, PayloadTooLarge, UsageError
from rq_lite.model.arguments import json_trouble, mended
from rq_lite.model.message import ITEM, TUPLE, VERSION, Message, entry_of, new_id
from rq_lite.model.put_options import Options

NO_OPTIONS = Options()
PLAIN = frozenset({str, int, bool, type(None)})


class Items:
    """The items of one queue in this process: how they are put, got, and read."""

    def __init__(self, sender: Sender, *, pickled: bool, ahead: int) -> None:
        self.sender = sender
        self.pickled = pickled
        self.ahead = ahead

    # -- putting

    def put(self, item: Any, priority: float | None, block: bool, timeout: float | None) -> None:
        wait = seconds(block, timeout)
        self.sender.put_entries([self.encoded(item, priority)], NO_OPTIONS, wait=wait)

    def put_many(self, those: Iterable[Any]) -> int:
        return self.sender.put_all((self.encoded(item, None) for item in each_of(those)), NO_OPTIONS)

    def encoded(self, item: Any, priority: float | None) -> bytes:
        """The item as bytes. Raises BadArgument, PayloadTooLarge, UsageError."""
        sender = self.sender
        ranked = sender.order == "priority"
        if self.pickled:
            check_secret(sender)
            message = Message(VERSION, new_id(), "", [], {ITEM: base64.b64encode(dumped(sender, item)).decode()})
        else:
            is_tuple = ranked and type(item) is tuple
            if type(item) not in PLAIN and (trouble := trouble_with([*item] if is_tuple else item)):
                raise BadArgument(f"queue {sender.name!r}: this item cannot be put: {trouble}")
            message = Message(VERSION, new_id(), "", [item], {TUPLE: True} if is_tuple else {})
        if ranked and priority is None:
            priority = own_priority(item)
        if priority is not None:
            priority = checks.priority(priority) or None  # without a priority it counts as 0
        seal, most = sender.seal, sender.settings.max_payload
        try:
            return entry_of(message, sender.name, seal, priority, most)
        except PayloadTooLarge:
            raise
        except Exception as error:
            raise BadArgument(f"queue {sender.name!r}: this item cannot be put: {error}") from None

    # -- getting

    @property
    def getter(self) -> Getter:
        sender = self.sender
        sender.check_open()
        sender.declare_once()
        return leases.getter_of(sender.broker, sender.name, sender.declare)

    @property
    def known_getter(self) -> Getter | None:
        """The getter, if a thread of this process has got from the queue."""
        return leases.known(self.sender.broker, self.sender.name)

    def take(self, timeout: float | None, done: Delivery | None = None, lingering: bool = False) -> Delivery:
        """The next delivery; `done` is settled in the same step. Raises Empty and ShutDown."""
        while True:
            getter = self.getter
            try:
                return getter.get(timeout, self.sender.check_open, done=done, lingering=lingering, ahead=self.ahead)
            except Closed:  # the getter has given `done` back, too
                done = None

    def each(self) -> Iterator[Any]:
        """The items that loops get, until the queue was shut down and is empty."""
        for one in leases.each(partial(self.take, None, lingering=True)):
            yield self.value(one)

    def value(self, one: Delivery) -> Any:
        """What it carries. An item that cannot be read is buried, one that may not be read here is given back."""
        try:
            return value(self.sender, one.message, pickled=self.pickled)
        except UsageError:
            one.getter.give_back(one)
            raise
        except Exception as error:  # a pickle may raise anything
            one.getter.bury(one, error)
            raise

    def close(self) -> None:
        if self.sender.close() and (getter := self.known_getter) is not None:
            getter.wake()
            getter.give_all_back()


def seconds(block: bool, timeout: float | None) -> float | None:
    """How long to wait (None: for ever), from `block` and `timeout` of the standard library."""
    if not block:
        return 0.0
    return None if timeout is None else number("'timeout'", timeout, "a non-negative number of seconds")


def own_priority(item: Any) -> float | None:
    """The priority of an item that is a number, or a tuple or list that begins with one, as in the standard library."""
    first = item[0] if isinstance(item, (tuple, list)) and item else item
    if not isinstance(first, (int, float)) or first != first:  # NaN
        return None
    try:
        return float(first)
    except OverflowError:
        return math.inf if first > 0 else -math.inf


def dumped(sender: Sender, item: Any) -> bytes:
    try:
        return pickle.dumps(item)
    except Exception as error:  # the item's own `__reduce__` may raise anything
        raise BadArgument(f"queue {sender.name!r}: this item cannot be pickled: {error}") from error


def trouble_with(item: Any) -> str | None:
    """Why the item would not arrive unchanged; None if it will."""
    try:
        trouble = json_trouble(item)
    except RecursionError:
        return "it is nested too deeply, or contains itself"
    way_out = "put a list" if isinstance(item, tuple) else "put text, numbers, lists or dicts of these, or a task"
    return trouble and mended(trouble, f"; {way_out}")


def value(sender: Sender, message: Message, *, pickled: bool) -> Any:
    """The item, or the Job of a task. Raises UsageError for a pickled one where that is not allowed."""
    if message.task:
        args, kwargs = tuple(message.args), message.kwargs
        return Job(id=message.id, queue=sender.name, task=message.task, args=args, kwargs=kwargs, tags=message.tags)
    if message.args:
        return tuple(message.args[0]) if TUPLE in message.kwargs else message.args[0]
    if not pickled:
        raise UsageError(f"queue {sender.name!r}: its next item is pickled; Queue(..., pickle=True) reads such items")
    check_secret(sender)
    return pickle.loads(base64.b64decode(message.kwargs[ITEM]))


def check_secret(sender: Sender) -> None:
    if not getattr(sender.settings, "secret", None):
        raise UsageError(
            f"queue {sender.name!r}: pickle=True needs a secret (RQ_LITE_SECRET): reading a pickle can run any code, "
            "so only signed ones are read"
        )
