"""Three ready-made systems. `rq-lite work workers` imports this and so knows all their tasks."""

from workers import crawl, packages, tickets

__all__ = ["crawl", "packages", "tickets"]
