"""What `consumer/handle.py` may raise to say more than "try again"."""


class PermanentFailure(Exception):
    """This message can never be handled: move it, whole, to the dead letters at once, and go on with the next one."""
