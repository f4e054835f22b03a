"""Messages of `destination simulate` as the product itself reads and stores them, for a comparison with its judge."""

import json

from handler.canonicalise import canonicalise_batch
from handler.record import Record


def record_of(traffic, parcel, fields=None, *, stored_at=0):
    """Return the record that the handler makes of a sent message."""
    told = traffic.shared(parcel.customer) if fields is None else fields
    [message] = canonicalise_batch({**told, "batch": [json.loads(parcel.body)]})
    return Record(
        customer_id=traffic.customer_ids[parcel.customer],
        message=message,
        settings=traffic.settings(parcel.customer) or {},
        stored_at=stored_at,
    )
