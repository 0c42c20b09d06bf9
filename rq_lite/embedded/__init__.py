"""A redis-server of this user, started when there is no other, and stopped when its last user has left."""
