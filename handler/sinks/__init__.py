"""Step 5: write records to where accepted messages go."""
