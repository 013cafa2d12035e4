"""Commands that are decided once each, one at a time for each account, whatever is killed."""

from functools import cache

from eventlog import blocking
from workers.blocking import Pool


@cache
def decisions():
    return blocking.open("decisions")  # opened once in each worker


def decide(envelope):
    account, amount = envelope.key, envelope.event["amount"]
    last = decisions().latest(account)  # the account, as the last decision on it left it
    seq_no = last.seq_no if last else 0
    state = last.event if last else {"command": 0, "balance": 0}
    if envelope.seq_no <= state["command"]:
        return  # it was decided, and the worker was killed before it could say so
    balance = state["balance"] + amount
    decision = {"command": envelope.seq_no, "accepted": balance >= 0}
    decision["balance"] = balance if balance >= 0 else state["balance"]
    decisions().append(decision, key=account, expect=seq_no)  # unless somebody else was first


def main():
    with blocking.open("commands") as log:
        for amount in (100, -70, -70):
            log.append({"amount": amount}, key="account-7")
        with Pool(log, group="decide", handler=decide, ordering="key", processes=2) as pool:
            pool.drained()
    for envelope in decisions().read(key="account-7"):
        print(envelope.event)


if __name__ == "__main__":
    main()
