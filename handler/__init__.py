"""The function that receives Segment's messages; `ls handler/` is its architecture, one module per step."""
