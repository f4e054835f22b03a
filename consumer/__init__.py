"""What happens to a message after it was stored: Lambda functions on the event table's stream and the event queue.

`handle.py` is the partner's own. The others bring it messages, and erase what a `delete` call names.
"""
