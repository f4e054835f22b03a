"""`destination schemas`: whether the schemas of a checkout are well, and what edited ones would change."""
