"""FastAPI with server-sent events: `uvicorn fastapi_sse:app`. A browser resumes where it was."""

import json
from contextlib import asynccontextmanager

from fastapi import FastAPI, Header, Request
from fastapi.responses import StreamingResponse

import eventlog
from eventlog import SeekPosition


@asynccontextmanager
async def lifespan(app):
    async with eventlog.open("orders") as app.state.log:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders")
async def order(request: Request, order: dict):
    return {"seq_no": await request.app.state.log.append(order)}


@app.get("/orders")
async def orders(request: Request, last_event_id: int = Header(0)):
    async def lines():
        position = SeekPosition.sequence(last_event_id + 1)
        async with request.app.state.log.follow(position) as stream:
            async for envelope in stream:
                yield f"id: {envelope.seq_no}\ndata: {json.dumps(envelope.event)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
