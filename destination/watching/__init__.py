"""`destination trace`, `tail` and `status`: what became of messages, by what the function and the API wrote of them.

lines         a line of either log              request_log  what a log can be asked, and which one to ask
local_log     the file of a local server        cloud_log    the log groups of a stack
what_follows  what the sender did after that    trace, tail, status  the commands
"""
