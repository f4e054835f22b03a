"""Exceptions that `consumer/handle.py` may raise for special failures; any other exception means "try again"."""


class PermanentFailure(Exception):
    """This message can never be handled: move it, whole, to the dead letters at once, and go on with the next one."""
