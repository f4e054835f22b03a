"""A deployment from the commands' point of view: its stack or local server, its settings, stores and tables."""
