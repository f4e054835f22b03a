"""What the function costs, measured side by side with others; `README.md` here explains each measurement."""
