"""Many buyers, few tickets, several box offices: never one sold twice, and none left over."""

from multiprocessing import Process
from threading import Thread

from rq_lite import Empty, Queue


def buy(tickets: Queue, sold: Queue, buyer: str) -> None:
    try:
        ticket = tickets.get_nowait()
    except Empty:
        return  # sold out
    sold.put([ticket, buyer])
    tickets.task_done()


def office(tickets: Queue, sold: Queue, name: str) -> None:
    buyers = [Thread(target=buy, args=(tickets, sold, f"{name} {number}")) for number in range(25)]
    for buyer in buyers:
        buyer.start()
    for buyer in buyers:
        buyer.join()


def main() -> None:
    tickets, sold = Queue("seats"), Queue("sold")
    for queue in (tickets, sold):
        queue.clear()  # something may be left, and one is closed, since the last time
        queue.reopen()
    tickets.put_many(f"seat {number}" for number in range(1, 11))
    offices = [Process(target=office, args=(tickets, sold, name)) for name in ("north", "south", "east", "west")]
    for process in offices:
        process.start()
    for process in offices:
        process.join()
    sold.shutdown()
    seats = [seat for seat, buyer in sold]
    print(f"100 buyers, {len(seats)} seats sold, none twice: {len(set(seats)) == len(seats)}, {tickets.qsize()} left")


if __name__ == "__main__":
    main()
