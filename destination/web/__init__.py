"""What the local server and `destination debug` need of a web server."""
