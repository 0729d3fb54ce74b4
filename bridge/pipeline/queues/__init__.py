"""The engine of queues: batches of messages that are deleted, or returned to their queue (the Return policy)."""
