"""What runs in the user's processes: queues, tasks, puts, gets, jobs and their results, the app."""
