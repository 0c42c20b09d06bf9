"""`python -m rq_lite` is `rq-lite`."""

from rq_lite.cli import main

main()
