"""Run work while the event loop continues: in daemon threads, or until the first of several tasks ends."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from threading import Thread
from typing import Any, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


async def in_background(
    work: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Result:
    """Run a function in a daemon thread, and return its result or raise its exception.

    The process does not wait for the thread at its end, as it would for the threads of an executor.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:  # noqa: BLE001 -- raised where it is awaited
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


async def first_to_end(works: Iterable[Coroutine[Any, Any, Result]]) -> Result:
    """Return the result of the first task that ends, and cancel the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
