"""What keeps queues going, in one thread of a worker and of any process that gets: leases, promotion, reclaim, cron."""
