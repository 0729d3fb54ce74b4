"""The delivery engine for ordered streams: batches, the Block policy, marks, and the worker that runs a mapping."""
