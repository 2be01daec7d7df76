"""Answers with aiohttp, POST without reading its body. Prints the port."""

import asyncio
import ssl
import sys

from aiohttp import web

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])


async def hello(request):
    return web.Response(text="hello")


async def reject(request):
    return web.Response(status=413)


async def main():
    app = web.Application()
    app.add_routes([web.get("/", hello), web.post("/", reject)])
    runner = web.AppRunner(app, keepalive_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    print("port", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
