"""A gevent process that runs jobs: it takes them, runs each in a slot, and settles how each has ended."""
