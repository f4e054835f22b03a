"""A deployment as the commands see it: its stack or local server, its settings, stores and tables."""
