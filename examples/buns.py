"""One bakes buns, one eats them: a shelf for ten lies between them, wherever the two run."""

from multiprocessing import Process

from rq_lite import Queue


def bake(shelf: Queue, count: int) -> None:
    for number in range(count):
        shelf.put(f"bun {number}")  # waits while ten lie there
    shelf.shutdown()


def eat(shelf: Queue) -> None:
    eaten = 0
    for _ in shelf:  # until the shelf is shut down and empty
        eaten += 1
    print(f"{eaten} buns eaten")


def main() -> None:
    shelf = Queue("buns", maxsize=10)
    shelf.clear()  # something may be left, and it is closed, since the last time
    shelf.reopen()
    baker, eater = Process(target=bake, args=(shelf, 50)), Process(target=eat, args=(shelf,))
    for process in (baker, eater):
        process.start()
    for process in (baker, eater):
        process.join()
    print(f"{shelf.qsize()} left")


if __name__ == "__main__":
    main()
