"""The debugger page: what arrives, as it arrives, and what became of it.

exchanges  the latest requests                layout      JSON as lines for people
rows       a request in a line                marks       what canonicalisation changed, and what a schema refused
feed       rows and numbers, as they come     rendering   what of a request may be shown: no keys
outcomes   what became of each message        inspect     all there is to know of one request
tester     sample messages, checked, sent     store_view  keys, stored messages and rejects
site       the routes of the page             arrivals    which messages arrived last
local      the page of a local server         stack       the page of a stack
"""
