"""What Segment and its libraries send, expect and retry. Nothing in this room is computed by the product itself."""
