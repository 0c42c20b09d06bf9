"""Values: what a job, an outcome, a retry or a schedule is. Nothing here does input or output."""
