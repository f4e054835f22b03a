"""The debugger page: requests as they arrive, and what happened to them.

exchanges  the latest requests                layout      JSON as lines for people
rows       a request as one line              marks       changes by canonicalisation, and violations of schemas
feed       live rows and numbers              rendering   the parts of a request that may be shown: no keys
outcomes   the outcome of each message        inspect     all details of one request
tester     sample messages, checked, sent     store_view  keys, stored messages and rejects
site       the routes of the page             arrivals    the messages that arrived last
local      the page of a local server         stack       the page of a stack
"""
