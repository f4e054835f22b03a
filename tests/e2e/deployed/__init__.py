"""An emulated AWS account (ministack) that accepts the whole stack by `sam deploy`, and enforces IAM."""
