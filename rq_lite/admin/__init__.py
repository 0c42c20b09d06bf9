"""What operators look at and change: the state of queues, jobs wherever they are, the dead set."""
