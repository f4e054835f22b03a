"""`destination certify` plays Segment's checklist, `destination catalog-page` drafts the public page.

wire          requests and answers, one by one
samples       messages that the schemas of this checkout let pass
store_access  temporary keys, what is stored, and how it is removed again
examination   what the points of the checklist work with
points        a point, its check, and what is found for it
expected      what must be stored, by the documentation and not by the product
transport, requests, keys, storage, identity, erasure, answers      the points
checklist     all of them, in order
run           one run of the checklist
report        what people read
catalog       a draft of the public page
"""
