"""For tests and examples of programs that use rq_lite; docs/testing.md has an example of each.

    inline      a put runs its job at once, in this process: no Redis, no worker
    recorded    puts are recorded and nothing is run: no Redis
    fake        a Redis within this process, by fakeredis: no server
    isolated    a real Redis of its own, for the time of a block
    worker      a real worker on it, for the time of a block
    drain       a real worker until nothing is left to do
    put_jobs, assert_put  what was put

For pytest there are also the fixtures `rq_redis`, `rq_fake`, `rq_queue` and `rq_worker` (rq_lite/pytest_plugin.py).
"""

from __future__ import annotations

from rq_lite.testing.fake import fake
from rq_lite.testing.inline import Ran, inline, recorded
from rq_lite.testing.isolation import isolated
from rq_lite.testing.puts import PutJob, assert_put, put_jobs
from rq_lite.testing.workers import drain, worker

__all__ = ["PutJob", "Ran", "assert_put", "drain", "fake", "inline", "isolated", "put_jobs", "recorded", "worker"]
