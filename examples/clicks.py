"""Unique jobs: two clicks make one job, a welcome is sent once for ever, and news that is late is not sent at all."""

from rq_lite import Duplicate, JobExpired, Queue
from rq_lite.testing import worker

orders = Queue("orders", maxsize=100)


@orders.task(unique="{cart}", result_ttl=60)
def buy(cart: int) -> str:
    return f"cart {cart} is paid"


@orders.task(unique="{user}", until="forever", on_conflict="raise")
def welcome(user: str) -> None:
    print(f"> welcome, {user}")


@orders.task(result_ttl=60)
def push(news: str) -> None:
    print(f"> {news}")


def main() -> None:
    orders.forget_all()  # so that this program can be started again
    first, second = buy.put(7), buy.put(7)  # a double click
    print("one job:", first == second, second.duplicate, orders.qsize())
    welcome.put("ada")
    try:
        welcome.put("ada")
    except Duplicate:
        print("ada is welcome already")
    late = push.using(expires=0.001).put("it rains")
    with worker("examples.clicks") as running:
        print(second.result(timeout=30))
        try:
            late.result(timeout=30)
        except JobExpired as error:
            print(error.message, "-", late.state())
        orders.join()
        print("a click after that:", buy.put(7).duplicate)
        print(*(line for line in running.said.splitlines() if line.startswith(">")), sep="\n")


if __name__ == "__main__":
    main()
