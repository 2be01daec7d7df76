"""Makes one request and closes as `mode` says. Prints the length of the body."""

import asyncio
import socket
import ssl
import sys

port, path, cafile, version, mode = sys.argv[1:]
context = ssl.create_default_context(cafile=cafile)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Response:
    """Bytes up to Content-Length, or up to the end of the connection."""

    def __init__(self):
        self.received = b""

    def takes(self, data):
        """Whether more is to be read after `data`."""
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        self.length = len(body)
        return bool(data) and not (length and len(body) >= int(length[0]))


def blocking():
    tls = context.wrap_socket(
        socket.create_connection(("127.0.0.1", int(port))), server_hostname="127.0.0.1", suppress_ragged_eofs=False
    )
    tls.sendall(request)
    response = Response()
    while response.takes(tls.recv(65536)):
        pass
    if mode == "unwrap":
        tls = tls.unwrap()
    tls.close()
    return response


async def asynchronous():
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port), ssl=context)
    writer.write(request)
    response = Response()
    while response.takes(await reader.read(65536)):
        pass
    writer.close()
    await writer.wait_closed()
    return response


print((asyncio.run(asynchronous()) if mode == "asyncio" else blocking()).length)
