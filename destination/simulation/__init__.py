"""`destination simulate`: deliver messages like Segment, and check that the store has all of them."""
