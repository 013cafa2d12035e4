"""Request and reply: a client waits for the answer to its own request, for a while."""

import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import anyio

import eventlog
from workers import Pool

PATIENCE_S = 10.0


def answer(request):
    return {"sum": sum(request["numbers"])}


async def serve():
    async with eventlog.open("requests") as requests, eventlog.open("replies") as replies:
        async with Pool(requests, group="answer", handler=answer, output=replies) as pool:
            await pool.run_forever()


async def ask(requests, replies, request):
    client = str(uuid4())  # a reply has the key of its request
    expires = datetime.now(UTC) + timedelta(seconds=PATIENCE_S)  # then nobody begins with it
    with anyio.fail_after(PATIENCE_S):
        async with replies.follow(keys={client}) as stream:
            await requests.append(request, key=client, expires=expires)
            return (await anext(stream)).event


async def main():
    async with eventlog.open("requests") as requests, eventlog.open("replies") as replies:
        print(await ask(requests, replies, {"numbers": [1, 2, 3]}))


if __name__ == "__main__":
    anyio.run(serve if sys.argv[1:] == ["serve"] else main)
