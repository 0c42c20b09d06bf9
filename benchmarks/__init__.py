"""What rq_lite costs, measured beside other queues on the same Redis in the same run: `python -m benchmarks`."""
