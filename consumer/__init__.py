"""Code that runs after a message is stored: Lambda functions on the event table's stream and the event queue.

`handle.py` is the partner's own code. `stream.py`, `queue.py` and `eraser.py` are the functions that template.yaml
names. `runtime/` passes messages to `handle.py`, `erasure/` erases the data that a `delete` call names, and `contacts/`
is the example that `handle.py` calls.
"""
