"""The points about `delete` calls: the data that must be erased, the data that must stay, and later messages."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from destination.certification.examination import CheckRequest, ErasedUser, Examination, UserToErase
from destination.certification.expected import message_of
from destination.certification.findings import DELETION, OURS, CheckResult, NotCheckable, failed, passed, warned
from destination.certification.points import Point
from destination.certification.store_access import StoreAccess
from destination.certification.wire import WireExchange, due
from destination.segment.contract import DELETE, JsonObject

MANY_MESSAGES = 105
"""Messages of the user to erase: more than one page of the eraser (100)."""
BATCH_MESSAGES = 35
"""Messages in one request: if a store fails sometimes, a larger batch would fail each time."""
BEFORE = timedelta(days=1)
"""The time of a message before its `delete`, and of another one after it."""
CONTACT_SECONDS = 10
"""Time for the shipped consumer to keep a contact; a partner's own consumer may keep none."""


def begin(examination: Examination, wanted: Collection[str]) -> None:
    """Send the messages of the user to erase early, so that the consumer has kept its contacts before the delete."""
    if {point.id for point in POINTS} & set(wanted):
        _user_to_erase(examination)


def _user_to_erase(examination: Examination) -> UserToErase:
    """Give two users with the same id a message, a reject and a contact each, once in a run."""
    if examination.user_to_erase is None:
        examination.user_to_erase = _send_user_to_erase(examination)
    return examination.user_to_erase


def _send_user_to_erase(examination: Examination) -> UserToErase:
    stores = examination.erasing_stores
    if examination.carrier == DELETE or DELETE not in stores.call_types:
        raise NotCheckable("there is no user to erase: delete calls and other call types must be supported")
    now = datetime.now(UTC)
    message = examination.message(**_times(now))
    user_id, name = message["userId"], f"{examination.marks['a name']}-erased"
    identify = _identify(examination, user_id, name)
    broken = None
    with suppress(NotCheckable):
        broken = {**examination.broken(), "userId": user_id}
    valid = [message, *([identify] if identify else [])]
    exchanges = examination.post_all_valid(map(CheckRequest, valid))
    bystander = examination.headers(examination.keys.bystander)
    exchanges += examination.post_all(map(examination.bystanders, valid))
    for exchange in exchanges:
        if not exchange.is_accepted:
            raise NotCheckable(f"a message was not accepted before the delete ({exchange.came})")
    examination.post_all([CheckRequest(broken), CheckRequest(broken, bystander)] if broken else [])
    return UserToErase(
        message=message,
        name=name,
        has_identify=identify is not None,
        has_broken=broken is not None,
        times={"earlier": _times(now - BEFORE), "later": _times(now + BEFORE)},
    )


def _identify(examination: Examination, user_id: str, name: str) -> JsonObject | None:
    """Return a message from which the shipped consumer makes a contact; None if it is off, or a schema refuses it."""
    if examination.erasing_stores.target.stores.consumer != "on" or not examination.call("identify").is_accepted:
        return None
    message = examination.message("identify", userId=user_id, traits={"name": name}, **_times(datetime.now(UTC)))
    return message if examination.samples.refusal(message) is None else None


def _erased_user(examination: Examination) -> ErasedUser:
    """Send the delete of the user to erase, once in a run."""
    if examination.erased_user is None:
        examination.erased_user = _send_delete(examination, _user_to_erase(examination))
    return examination.erased_user


def _send_delete(examination: Examination, user: UserToErase) -> ErasedUser:
    """Send the delete after contacts and rejects of both users are stored, or certainly won't be."""
    stores, user_id = examination.erasing_stores, user.message["userId"]
    if not examination.call(DELETE).is_accepted:
        raise NotCheckable(f"delete calls are not accepted ({examination.call(DELETE).came})")
    has_contact = user.has_identify and stores.wait_for(
        lambda: all(stores.contacts_with(user.name, customer_id=one) for one in stores.customer_ids), CONTACT_SECONDS
    )
    has_reject = user.has_broken and all(stores.rejects_of(user_id, customer_id=one) for one in stores.customer_ids)
    delete = examination.post_valid({**examination.message(DELETE), "userId": user_id})
    if not delete.is_accepted:
        raise NotCheckable(f"the delete was not accepted ({delete.came})")
    return ErasedUser(**vars(user), delete=delete, has_reject=has_reject, has_contact=has_contact)


def _times(moment: datetime) -> JsonObject:
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"timestamp": text, "originalTimestamp": text, "sentAt": text, "receivedAt": text}


def _carried_out(examination: Examination) -> CheckResult:
    """Erase a user with messages, unless only deletes are supported; then check all deletes of the run."""
    stores = examination.erasing_stores
    if not examination.call(DELETE).is_accepted:
        raise NotCheckable(f"delete calls are not accepted ({examination.call(DELETE).came})")
    with suppress(NotCheckable):
        _erased_user(examination)
    message = examination.message()
    user_id = message["userId"]
    exchanges = [] if message["type"] == DELETE else [*_send_many(examination, message)]
    exchanges.append(examination.post_valid({**examination.message(DELETE), "userId": user_id}))
    if not all(exchange.is_accepted for exchange in exchanges):
        return failed(f"answered {' and '.join(exchange.came for exchange in exchanges)}", *exchanges)
    deletes = [accepted.plain for accepted in examination.accepted if accepted.is_delete]
    for delete in deletes:
        if not stores.is_requested(delete):
            return failed(f"the delete of {delete['userId']} was accepted, but not stored", *exchanges)
    for delete in deletes:
        if unfinished := _unfinished(examination, delete, exchanges[-1]):
            return unfinished
    left = len(stores.items_of(message))
    if left:
        return failed(f"there is a receipt, but {left} of the user's {MANY_MESSAGES} messages are left", *exchanges)
    count = f"{MANY_MESSAGES} messages are gone" if len(exchanges) > 1 else "messages are gone"
    return passed(f"the user's {count}, and there are receipts of all {len(deletes)} deletes", exchanges[-1])


def _send_many(examination: Examination, message: JsonObject) -> Sequence[WireExchange]:
    """Send many messages of one user, in a few requests if the routes of libraries accept them."""
    ids = {name: message[name] for name in ("userId", "anonymousId", "previousId") if name in message}
    messages = [message, *({**examination.message(), **ids} for _ in range(MANY_MESSAGES - 1))]
    if examination.samples.settings or not examination.has_library_routes:
        return examination.post_all_valid(map(CheckRequest, messages))
    examination.erasing_stores.note_plain(message)
    batches = [messages[begin : begin + BATCH_MESSAGES] for begin in range(0, len(messages), BATCH_MESSAGES)]
    path = examination.target("/v1/batch")
    return examination.post_all(CheckRequest({"batch": batch}, target=path) for batch in batches)


def _bystander(examination: Examination) -> CheckResult:
    """Look for remaining data of an erased user, and for the data of another customer's user with the same id."""
    stores, user = examination.erasing_stores, _erased_user(examination)
    if unfinished := _unfinished(examination, user.message, user.delete):
        return unfinished
    if fault := next(_faults(stores, user), None):
        return failed(fault, user.delete)
    what = ["message", *(["reject"] if user.has_reject else []), *(["contact"] if user.has_contact else [])]
    kinds = " and ".join(what)
    return passed(
        f"its {kinds} are gone, and the {kinds} of another customer's user with the same id stay", user.delete
    )


def _unfinished(examination: Examination, user: JsonObject, delete: WireExchange) -> CheckResult | None:
    """Wait until a user is erased. If that does not happen, return an outcome: a warning if the run saw failures."""
    stores = examination.erasing_stores
    if not stores.is_requested(user):
        return failed("the delete was accepted, but not stored", delete)
    if stores.is_erased(user):
        return None
    says = f"there was no receipt of {user['userId']} within {stores.max_wait_seconds} s"
    if examination.wire.has_failures:
        return warned(f"{says}; requests of this run failed too, so the eraser may be late", delete)
    return failed(says, delete)


def _faults(stores: StoreAccess, user: ErasedUser) -> Iterator[str]:
    user_id, other = user.message["userId"], stores.bystander_id
    if left := len(stores.items_of(user.message)):
        yield f"{left} messages of the erased user are left"
    if left := stores.rejects_of(user_id):
        yield f"{left} rejects of the erased user are left"
    if user.has_contact and not stores.wait_for(lambda: not stores.contacts_with(user.name)):
        yield "a contact of the erased user is left"
    kept = {message_of(item).get("message_id") for item in stores.items_of(user.message, customer_id=other)}
    if user.message["messageId"] not in kept:
        yield "the delete of one customer erased a message of another customer's user"
    if user.has_reject and not stores.rejects_of(user_id, customer_id=other):
        yield "the delete of one customer erased a reject of another customer's user"
    if user.has_contact and not stores.contacts_with(user.name, customer_id=other):
        yield "the delete of one customer erased a contact of another customer's user"


def _around(examination: Examination) -> CheckResult:
    """Send messages from before and after a delete, after the user is erased."""
    stores, user = examination.erasing_stores, _erased_user(examination)
    mode = stores.target.stores.after_erasure
    if not mode:
        raise NotCheckable("this stack has no output AfterErasure: deploy this version of template.yaml")
    if unfinished := _unfinished(examination, user.message, user.delete):
        return unfinished
    user_id = user.message["userId"]
    messages = [{**examination.message(**user.times[when]), "userId": user_id} for when in ("earlier", "later")]
    answers = examination.post_all_valid(map(CheckRequest, messages))
    return _judge_around(examination, mode, messages, answers)


def _judge_around(
    examination: Examination, mode: str, messages: Sequence[JsonObject], answers: Sequence[WireExchange]
) -> CheckResult:
    (earlier, later), (to_earlier, to_later) = messages, answers
    expected = due("user_erased") if mode == "refuse" else "200"
    says = f"AfterErasure={mode}: what happened"
    if (to_earlier.came if mode == "refuse" else str(to_earlier.status)) != expected:
        return failed(f"{says} before the delete is answered {to_earlier.came}; expected: {expected}", to_earlier)
    if not to_later.is_accepted:
        return failed(f"{says} after the delete is answered {to_later.came}; expected: a success", to_later)
    stored = {message_of(item).get("message_id") for item in examination.erasing_stores.items_of(later)}
    wanted = {later["messageId"]} | (set() if mode == "refuse" else {earlier["messageId"]})
    if stored != wanted:
        return failed(
            f"AfterErasure={mode}: {len(stored)} messages are stored after the delete; expected: {len(wanted)}",
            to_earlier,
            to_later,
        )
    earlier_are = "refused" if mode == "refuse" else "stored"
    return passed(f"AfterErasure={mode}: earlier messages are {earlier_are}, later ones are stored", *answers)


POINTS = (
    Point(
        id="delete.carried-out",
        title="A delete call erases the user",
        source=DELETION,
        remedy="`destination erasures list` shows unfinished ones, docs/explanation/privacy.md what may stop them.",
        check=_carried_out,
    ),
    Point(
        id="delete.bystander",
        title="A delete call erases all data of its user, and no data of others",
        source=DELETION,
        remedy=(
            "Erase messages, rejects and contacts by customer and user, never by the user's id alone; "
            "docs/explanation/privacy.md."
        ),
        check=_bystander,
    ),
    Point(
        id="delete.around",
        title="Messages that arrive after a delete are treated by AfterErasure",
        source=OURS,
        remedy=(
            "With AfterErasure=refuse answer 403 to messages from before the delete, and accept later ones; "
            "with store accept both; docs/explanation/privacy.md."
        ),
        check=_around,
    ),
)
