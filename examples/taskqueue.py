"""A pool of threads in a few lines: what is added runs in one of them, or in another program with the same queue."""

import logging
from collections.abc import Callable
from threading import Thread
from typing import Any

from rq_lite import Queue


class TaskQueue(Queue):
    def __init__(self, name: str, num_workers: int = 1) -> None:
        super().__init__(name)
        self.known: dict[str, Callable[..., Any]] = {}
        for _ in range(num_workers):
            Thread(target=self.work, daemon=True).start()

    def add_task(self, function: Callable[..., Any], *args: Any) -> None:
        self.known[function.__name__] = function  # the name goes into the queue: code never does
        self.put([function.__name__, list(args)])

    def work(self) -> None:
        for name, args in self:
            try:
                function = self.known[name]
                function(*args)
            except Exception:  # of the function, or its name is not known here: the thread goes on
                logging.exception("%s%s failed", name, args)


def main() -> None:
    squares: list[int] = []

    def square(number: int) -> None:
        squares.append(number * number)

    Queue("errands").clear()  # something may be left since the last time
    errands = TaskQueue("errands", num_workers=5)
    for number in range(10):
        errands.add_task(square, number)
    errands.join()
    print(sorted(squares))


if __name__ == "__main__":
    main()
