"""Runs under faults: what the processes of such a run write down, and what can be proved from it.

A history is a folder with a file for each process, `*.jsonl`. Each line is a moment, one JSON object: `t` (seconds of
the machine's monotonic clock), `w` (seconds since 1970), `at` (the moment's name) and its facts. `reading.py` lists the
moments that the checker knows; others may stand between them.
"""
