"""How many pages one core fetches and reads: workers/crawl, an earlier revision of it, and Scrapy, side by side."""
