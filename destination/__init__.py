"""The command `destination`: what people run. Never part of the deployed function."""
