"""Runs under faults: the history that the processes of such a run write, and what it proves.

A history is a folder with a file for each process, `*.jsonl`. Each line is an event, one JSON object: `t` (seconds of
the machine's monotonic clock), `w` (seconds since 1970), `at` (the event's name) and its facts. `reading.py` lists the
events that the checker reads; it skips others.
"""
