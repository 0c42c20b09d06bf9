"""The sources of `rq-lite produce`: files, streams and folders, read item by item from where the last run ended."""
