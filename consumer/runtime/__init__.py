"""Pass messages to `consumer/handle.py`: batches, retries, dead letters, and clients with long time-outs."""
