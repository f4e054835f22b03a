"""`destination simulate`: Segment's delivery played, and the store asked whether all is there."""
