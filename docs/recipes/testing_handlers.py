"""Tests of a handler without processes: `pytest testing_handlers.py` takes milliseconds."""

from eventlog import blocking
from workers import Backoff, Reject
from workers.blocking import Pool


def bill(envelope):
    if envelope.event["price"] < 0:
        raise Reject("a negative price")  # a dead letter at once: trying again is of no use
    if envelope.attempt == 1 and envelope.event.get("is_flaky"):
        raise ConnectionError("the bank does not answer")
    return {"order": envelope.seq_no, "billed": envelope.event["price"]}


def run(handler, events):
    """The results of the events, and the errors of those that became dead letters."""
    with blocking.open("memory:") as log:
        log.append_many(events)
        options = {"processes": 0, "backoff": Backoff(first_s=0.001), "output": log}
        with Pool(log, group="bill", handler=handler, **options) as pool:
            pool.drained()
            letters = {letter.seq_no: letter.error for letter in pool.dead_letters()}
        return [envelope.event for envelope in log.read(1) if envelope.cause], letters


def test_an_order_is_billed():
    assert run(bill, [{"price": 3}]) == ([{"order": 1, "billed": 3}], {})


def test_a_bank_that_does_not_answer_is_asked_again():
    assert run(bill, [{"price": 3, "is_flaky": True}]) == ([{"order": 1, "billed": 3}], {})


def test_a_negative_price_is_refused_at_once():
    results, letters = run(bill, [{"price": -3}, {"price": 5}])
    assert results == [{"order": 2, "billed": 5}]
    assert letters == {1: "workers.Reject: a negative price"}
