"""Test limits that customers, operators and AWS know, as literal values. Other tests use the constants."""

import importlib

import pytest

LIMITS = {
    # What AWS accepts in one call or in one item
    "consumer.contacts.table.BATCH_DELETES": 25,
    "handler.erased.MAX_BATCH_GET_KEYS": 100,
    "handler.items.MAX_ITEM_BYTES": 390 * 1024,
    "handler.record.MAX_POSITION_BYTES": 1024,
    "handler.record.MAX_SUBJECT_BYTES": 2048,
    "handler.sinks.sqs.MAX_QUEUE_MESSAGES": 10,
    "handler.sinks.sqs.MAX_QUEUE_MESSAGE_BYTES": 1024 * 1024,
    # Limits for customers
    "handler.canonicalise.MAX_INHERITED_BYTES": 16 * 1024 * 1024,
    "handler.decode.MAX_BATCH_BYTES": 500 * 1024,
    "handler.decode.MAX_BODY_BYTES": 1024 * 1024,
    "handler.decode.MAX_GZIP_MEMBERS": 100,
    "handler.decode.MAX_INTEGER_DIGITS": 308,
    "handler.decode.MAX_NESTING": 100,
    "handler.decode.MAX_SETTINGS_BYTES": 8 * 1024,
    "handler.keys.MAX_KEY_CHARS": 256,
    "handler.spec.MAX_NAME_CHARS": 64,
    "handler.split.MAX_BATCH_MESSAGES": 2500,
    # Limits of answers and log lines
    "consumer.runtime.batch.MAX_TRACEBACK_CHARS": 20_000,
    "consumer.runtime.batch.MAX_TRACEBACK_FRAMES": 20,
    "consumer.runtime.batch.MAX_TRACEBACK_PART_CHARS": 1000,
    "handler.diagnose.MAX_VIOLATIONS": 10,
    "handler.observe.MAX_LOGGED_CHARS": 100,
    "handler.observe.MAX_LOGGED_MESSAGES": 100,
    "handler.observe.MAX_LOGGED_TEXT_CHARS": 300,
    # How long a caller waits, and how often a store is called
    "handler.health.KEPT_SECONDS": 10,
    "handler.keys.MAX_REFUSAL_AGE_SECONDS": 5,
    "handler.keys.READ_AGAIN_SECONDS": 5,
    "handler.parallel.CALLS_AT_ONCE": 8,
    "handler.parallel.FIRST_WAIT_SECONDS": 0.05,
    "handler.parallel.TRIES": 4,
    "handler.request.MAX_AGE_SECONDS": 30,
    "handler.settings.ANSWER_SECONDS": 4.5,
    "handler.settings.CONNECT_TIMEOUT_SECONDS": 0.4,
    "handler.settings.LIBRARY_ANSWER_SECONDS": 9.4,
    "handler.settings.MAX_BACKOFF_SECONDS": 1.0,
    "handler.settings.READ_TIMEOUT_SECONDS": 0.6,
    "handler.settings.STORE_CALL_SECONDS": 2.0,
    "handler.settings.STORE_TRIES": 2,
    # What consumers and the eraser may use of a table and of their time
    "consumer.contacts.table.MAX_ERASING_SECONDS": 10,
    "consumer.contacts.table.MAX_PAUSE_SECONDS": 0.2,
    "consumer.contacts.table.MAX_TRIES": 10,
    "consumer.contacts.contact.MAX_FACT_BYTES": 1024,
    "consumer.contacts.contact.MAX_GROUPS": 50,
    "consumer.contacts.contact.MAX_TEXT_CHARS": 4096,
    "consumer.contacts.contact.MAX_TRAITS": 300,
    "consumer.erasure.subject.PAGE_KEYS": 100,
    "consumer.erasure.subject.WRITE_UNITS_PER_SECOND": 250,
    "consumer.eraser.LATEST_WRITE_SECONDS": 10,
    "consumer.eraser.SPARE_SECONDS": 60,
    "consumer.erasure.table.MAX_LINKED_IDS": 1000,
    "consumer.stream.MESSAGE_SECONDS": 30,
}


@pytest.mark.parametrize("name", LIMITS)
def test_limit_is(name):
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) == LIMITS[name]
