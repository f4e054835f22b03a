"""What happens to a message after it was stored: Lambda functions on the event table's stream and the event queue.

`handle.py` is the partner's own code. `stream.py`, `queue.py` and `eraser.py` are the functions that template.yaml
names. `runtime/` brings messages to `handle.py`, `erasure/` erases what a `delete` call names, and `contacts/` is the
example that `handle.py` calls.
"""
