"""The Lambda function that receives Segment's messages: one module per step."""
