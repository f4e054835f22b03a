"""The debugger page: what arrives, as it arrives, and what became of it.

exchange  a request and its answer       layout   JSON as lines for people
rows      a request in a line            marks    what canonicalisation changed, and what a schema refused
feed      rows and numbers, as they come inspect  all there is to know of one request
tester    sample messages, checked, sent stores   keys, stored messages and rejects
site      the routes of the page         debug    `destination debug`: the page of a stack
"""
