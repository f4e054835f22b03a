"""`destination certify` runs Segment's checklist, and `destination catalog-page` drafts the public page.

wire          requests and answers, one by one
samples       messages that pass the schemas of this checkout
store_access  temporary keys, stored items, and their removal
examination   the endpoint, keys, messages and stores that the points use
points        a point, its check, and its finding
expected      the expected stored form, from the documentation and not from the product
transport, requests, keys, storage, identity, erasure, answers      the points
checklist     all points, in order
run           one run of the checklist
report        the report for people
catalog       a draft of the public page
"""
