"""The smallest program: a task, a put, and a worker that runs it."""

from rq_lite import Queue
from rq_lite.testing import worker

greetings = Queue("hello", maxsize=10)


@greetings.task
def greet(name: str) -> None:
    print(f"hello, {name}")


def main() -> None:
    with worker("examples.hello") as running:  # elsewhere: `rq-lite work examples.hello`
        for name in ("Ada", "Alan", "Grace"):
            greet.put(name)
        greetings.join()
        print(sorted(line for line in running.said.splitlines() if line.startswith("hello")))


if __name__ == "__main__":
    main()
