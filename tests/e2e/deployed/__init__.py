"""An emulated AWS account (ministack) that takes the whole stack by `sam deploy` and enforces IAM."""
