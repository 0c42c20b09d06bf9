"""Jobs that run outside the consumer's loop: in its threads (`run_in="thread"`), or in processes of their own."""
