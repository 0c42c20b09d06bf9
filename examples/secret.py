"""Jobs are signed: one put without the secret is buried, with the reason, and never run."""

import os

from rq_lite import Queue
from rq_lite.admin import dead
from rq_lite.broker import keys
from rq_lite.testing import worker

# In production the secret is in the environment of the programs that put, and of the workers.
os.environ.setdefault("RQ_LITE_SECRET", "a key that no other program knows")

payments = Queue("payments", maxsize=10)


@payments.task
def pay(amount: int, to: str) -> None:
    print(f"paid {amount} to {to}")


def main() -> None:
    before = {job.tag for job in dead.buried(payments.broker, "payments")}  # this may not be the first time
    pay.put(5, to="Ada")
    # Another program can write to this Redis, but has no secret:
    forged = b'{"v":1,"id":"forged","task":"examples.secret:pay","args":[1000000,"Mallory"]}'
    payments.broker.read(("LPUSH", keys.of("payments").pending, forged))
    # Or it takes a job that was signed, and changes it:
    payments.broker.read(("LPUSH", keys.of("payments").pending, signed("Bob").replace(b"Bob", b"Eve")))
    with worker("examples.secret") as running:
        payments.join()
        print([line for line in running.said.splitlines() if line.startswith("paid")])
    for job in sorted(dead.buried(payments.broker, "payments"), key=lambda job: job.tag):
        if job.tag not in before:
            print(f"{job.id}: {job.error}")


def signed(to: str) -> bytes:
    """The entry that a put would send to Redis."""
    return pay.encoded((6, to), {}, "altered")


if __name__ == "__main__":
    main()
