"""The cost of rq_lite, measured beside other queues on the same Redis in the same run: `python -m benchmarks`."""
