"""`destination schemas`: check the schemas of a checkout, and show what edited schemas would change."""
