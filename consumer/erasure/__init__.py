"""What `consumer/eraser.py` does: erase the data of one subject, and keep tombstones and receipts."""
