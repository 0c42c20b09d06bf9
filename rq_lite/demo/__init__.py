"""What `rq-lite demo` shows: a producer, a bounded queue, a worker, and a small website that counts requests."""
