"""The parts of a web server that the local server and `destination debug` share."""
