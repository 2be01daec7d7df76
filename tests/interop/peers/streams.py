"""Holds a response open that has no end of its own, and prints what becomes of it.

`websocket` sends messages over a WebSocket, one after the other, each when it has the echo of the one before. It prints "open" at the first
echo, and at the end the close code and whether each message came back whole, but for the last one.

`events` prints the number of each server-sent event. Its library connects again when the stream ends, as a browser's `EventSource` does, and
asks for the events behind the last one that it has.
"""

import asyncio
import ssl
import sys

kind, port, cafile = sys.argv[1:]


async def websocket():
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    context = ssl.create_default_context(cafile=cafile)
    async with connect(f"wss://127.0.0.1:{port}/ws", ssl=context, proxy=None) as socket:
        echoes = 0
        try:
            while True:
                message = f"message {echoes} " + "." * 5000
                await socket.send(message)
                if await socket.recv() != message:
                    print("another message came back")
                    return
                echoes += 1
                if echoes == 1:
                    print("open", flush=True)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            print(f"code {code}, ours {closed.sent.code if closed.sent else None}")


def events():
    import requests
    from sseclient import SSEClient

    session = requests.Session()
    session.verify, session.trust_env = cafile, False
    for event in SSEClient(f"https://127.0.0.1:{port}/events", retry=100, session=session):
        # A comment is no event, although this library returns one.
        if event.data:
            print(f"event {event.data}", flush=True)


asyncio.run(websocket()) if kind == "websocket" else events()
