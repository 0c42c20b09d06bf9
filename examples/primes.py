"""A job that computes runs in a process of its own, and quick jobs go on meanwhile."""

from rq_lite import Queue
from rq_lite.testing import worker

numbers = Queue("numbers", maxsize=100)


@numbers.task(run_in="process", timeout=60)
def count_primes(below: int) -> None:
    found = sum(all(n % divisor for divisor in range(2, int(n**0.5) + 1)) for n in range(2, below))
    print(f"> {found} primes below {below}")


@numbers.task
def tell(what: str) -> None:
    print(f"> {what}")


def main() -> None:
    with worker("examples.primes") as running:
        count_primes.put(200_000)  # a second or two of computing
        for animal in ("hen", "goose", "duck"):
            tell.put(animal)
        numbers.join()
        print("\n".join(line for line in running.said.splitlines() if line.startswith(">")))


if __name__ == "__main__":
    main()
