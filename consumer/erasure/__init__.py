"""The parts of `consumer/eraser.py`: erase the data of one subject, and keep tombstones and receipts."""
