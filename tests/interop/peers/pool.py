"""Sends POST requests one after the other through a pool of one connection. Prints how many were answered.

Every other request has a large body and goes to a path that does not exist, so that the server answers before it has read the body. With
`idle`, it makes one request instead, prints "idle", and does not look at its connection until its input ends.
"""

import asyncio
import ssl
import sys

library, port, cafile, mode = sys.argv[1:]
url = f"https://127.0.0.1:{port}"
requests_to_make = [("/unknown", bytes(60_000)), ("/count", b"small")] * 40 if mode == "pairs" else [("/count", b"small")]


def run(post):
    """Makes all requests by a function that raises where the answer is lost."""
    answered = 0
    for path, body in requests_to_make:
        try:
            post(url + path, body)
            answered += 1
        except (OSError, RuntimeError) as error:
            print(repr(error), file=sys.stderr)
    finish(answered)


def finish(answered):
    if mode == "idle":
        print("idle", flush=True)
        sys.stdin.read()
    print(answered)


def with_requests():
    import requests

    session = requests.Session()
    session.verify = cafile
    session.trust_env = False
    run(lambda address, body: session.post(address, data=body))


def with_httpx(http2):
    import httpx

    context = ssl.create_default_context(cafile=cafile)
    client = httpx.Client(verify=context, http2=http2, trust_env=False)

    def post(address, body):
        try:
            client.post(address, content=body)
        except httpx.TransportError as error:
            raise RuntimeError from error

    run(post)


async def with_aiohttp():
    import aiohttp

    context = ssl.create_default_context(cafile=cafile)
    connector = aiohttp.TCPConnector(ssl=context, limit=1)
    # By default, aiohttp repeats a request whose connection turns out to be closed. So no loss is hidden.
    async with aiohttp.ClientSession(connector=connector) as session:
        session._retry_connection = False
        answered = 0
        for path, body in requests_to_make:
            try:
                async with session.post(url + path, data=body) as response:
                    await response.read()
                answered += 1
            except (OSError, aiohttp.ClientError) as error:
                print(repr(error), file=sys.stderr)
        finish(answered)


match library:
    case "requests":
        with_requests()
    case "httpx":
        with_httpx(http2=False)
    case "httpx-http2":
        with_httpx(http2=True)
    case "aiohttp":
        asyncio.run(with_aiohttp())
