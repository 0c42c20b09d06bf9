"""Several who bake and several who eat, and all of them end by themselves."""

from multiprocessing import Process

from rq_lite import Queue, ShutDown


def bake(shelf: Queue, baker: str) -> None:
    for number in range(20):
        shelf.put([baker, number])


def eat(shelf: Queue, plates: Queue) -> None:
    eaten = 0
    while shelf.get() is not None:
        eaten += 1
        shelf.task_done()
    plates.put(eaten)
    shelf.task_done()  # the sentinel counts, too


def main() -> None:
    shelf, plates = Queue("shelf", maxsize=10), Queue("plates")
    for queue in (shelf, plates):
        queue.clear()  # something may be left, and they are closed, since the last time
        queue.reopen()
    bakers = [Process(target=bake, args=(shelf, name)) for name in ("Ada", "Alan", "Grace")]
    eaters = [Process(target=eat, args=(shelf, plates)) for _ in range(4)]
    for process in bakers + eaters:
        process.start()
    for baker in bakers:
        baker.join()
    for _ in eaters:
        shelf.put(None)  # one sentinel for each
    shelf.join()  # all buns are eaten, all sentinels were seen
    shelf.shutdown()
    plates.shutdown()
    print(sum(plates), "buns eaten")
    try:
        shelf.put("late")
    except ShutDown:
        print("the bakery is closed")
    for eater in eaters:
        eater.join()


if __name__ == "__main__":
    main()
