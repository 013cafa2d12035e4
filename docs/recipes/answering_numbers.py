"""A service that stores lines of TCP clients and answers each with its number, in their order."""

import asyncio

import eventlog


async def answer(handles, writer):
    while (handle := await handles.get()) is not None:
        writer.write(b"%d\n" % await handle)
        await writer.drain()


async def serve(log, reader, writer):
    handles = asyncio.Queue(1000)  # a client that reads no answers is held up
    try:
        async with log.publisher() as publisher, asyncio.TaskGroup() as tasks:
            tasks.create_task(answer(handles, writer))
            while line := await reader.readline():  # the next lines are sent meanwhile
                await handles.put(await publisher.send({"line": line.decode().rstrip()}))
            await handles.put(None)
    finally:  # after an error, too: the client opens another connection, which has a publisher
        writer.close()


async def main():
    async with eventlog.open("lines") as log:
        server = await asyncio.start_server(lambda *ends: serve(log, *ends), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
