"""Tasks as with Celery: call `add.delay(1, 2)` anywhere, and let `python tasks.py` run them."""

from eventlog import SeekPosition, blocking
from workers.blocking import Pool

TASKS = {}


def task(function):
    def delay(*args, **kwargs):
        with blocking.open("tasks") as log:
            return log.append({"task": function.__name__, "args": args, "kwargs": kwargs})

    TASKS[function.__name__] = function
    function.delay = delay
    return function


def run(event):
    return {"result": TASKS[event["task"]](*event["args"], **event["kwargs"])}


def result(seq_no):
    with blocking.open("tasks") as log, log.follow(SeekPosition.sequence(seq_no)) as stream:
        return next(
            envelope.event["result"]
            for envelope in stream
            if envelope.cause and envelope.cause.seq_no == seq_no
        )


@task
def add(a, b):
    return a + b


if __name__ == "__main__":
    with blocking.open("tasks") as log, Pool(log, group="run", handler=run, output=log) as pool:
        pool.run_forever()
