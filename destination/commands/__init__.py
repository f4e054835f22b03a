"""The commands of `destination`, one module each: options, calls and output."""
