"""FastAPI with server-sent events: `uvicorn fastapi_sse:app`. A browser resumes where it was."""

from collections.abc import AsyncIterable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

import eventlog
from eventlog import SeekPosition


@asynccontextmanager
async def lifespan(app):
    async with eventlog.open("orders") as app.state.log:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders")
async def order(order: dict):
    return {"seq_no": await app.state.log.append(order)}


@app.get("/orders", response_class=EventSourceResponse)
async def orders(last_event_id: Annotated[int, Header()] = 0) -> AsyncIterable[ServerSentEvent]:
    async with app.state.log.follow(SeekPosition.sequence(last_event_id + 1)) as stream:
        async for envelope in stream:
            yield ServerSentEvent(data=envelope.event, id=str(envelope.seq_no))
