"""What `rq-lite produce` reads: files, streams and folders, item by item, from where the last run ended."""
