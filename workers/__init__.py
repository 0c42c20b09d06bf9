"""Three ready-made systems. `rq-lite work workers` imports this module and with it all their tasks."""

from workers import crawl, packages, tickets

__all__ = ["crawl", "packages", "tickets"]
