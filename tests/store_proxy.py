"""The fault proxy of destination/local/faults.py in front of a store, in its own event loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from threading import Thread

from destination.local import faults
from destination.local.faults import LOOPBACK, FaultProxy, Rule, Store


class Fault(Enum):
    """Faults of the store, as rules of the proxy."""

    NONE = ()
    HANGS = (Rule(faults=(faults.Fault.HANGS_BEFORE,)),)
    DRIBBLES = (Rule(faults=(faults.Fault.DRIBBLES,)),)
    HAS_NO_QUEUES = (Rule(stores=frozenset({Store.QUEUE}), faults=(faults.Fault.ACCESS_DENIED,)),)


class StoreProxy(FaultProxy):
    """A proxy that passes requests on until it gets a fault."""

    @property
    def fault(self) -> Fault:
        return Fault(self.rules)

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self.rules = fault.value


@contextmanager
def store_proxy(target: str, *, host: str = LOOPBACK) -> Iterator[StoreProxy]:
    """Run a proxy in front of the server at `target`."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    proxy = StoreProxy(target, host=host)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
