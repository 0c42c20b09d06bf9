"""Tasks whose jobs put jobs, as in a nightly import, a crawl and a sender."""

from __future__ import annotations

import threading

from rq_lite import Queue, current_job
from tests.acceptance.apps.evidence import note

PAGES = 6_000

rows = Queue("rows", maxsize=1_000)
pages = Queue("pages", maxsize=200, maxbytes=50_000)
mails = Queue("mails", maxsize=5)
narrow = Queue("narrow", maxsize=5, headroom=10)


@rows.task
def import_all(count: int) -> None:
    assert store.put_many(range(count)) == count


@rows.task
def store(row: int) -> None: ...


@pages.task
def page(number: int) -> None:
    """Puts the two links of a page, on a site of PAGES pages."""
    for link in (2 * number, 2 * number + 1):
        if link <= PAGES:
            page.put(link)


@rows.task(run_in="process")
def import_in_a_process(count: int) -> None:
    store.put_many(range(count))


@rows.task
def import_in_a_thread(count: int) -> None:
    thread = threading.Thread(target=store.put_many, args=(range(count),))
    thread.start()
    thread.join()


@rows.task(result_ttl=60)
def write(letters: int) -> int:
    """Puts into a queue that another worker serves."""
    return mail.put_many(range(letters))


@rows.task(run_in="process", result_ttl=60)
def write_in_a_process(letters: int) -> int:
    return mail.put_many(range(letters))


@rows.task(result_ttl=60)
def write_soon(wait: float) -> None:
    mail.using(wait=wait).put(0)


@mails.task
def mail(number: int) -> None:
    note("mails", number)


@narrow.task(result_ttl=60)
def widen(count: int) -> None:
    job = current_job()
    assert job is not None
    nothing.put_many(range(count))


@narrow.task
def nothing(number: int) -> None: ...
