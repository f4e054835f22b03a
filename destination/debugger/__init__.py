"""The debugger page: what arrives, as it arrives, and what became of it.

exchange  a request and its answer       layout    JSON as lines for people
rows      a request in a line            marks     what canonicalisation changed, and what a schema refused
feed      rows and numbers, as they come shown     what of a request may be shown: no keys
verdicts  what was said of each message  inspect   all there is to know of one request
tester    sample messages, checked, sent holdings  keys, stored messages and rejects
site      the routes of the page         server    the HTTP server below it
local     the page of a local server     debug     `destination debug`: that of a stack
"""
