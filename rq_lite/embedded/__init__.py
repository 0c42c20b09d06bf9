"""A redis-server for this user, started when no other Redis is set, and stopped when no process uses it any more."""
