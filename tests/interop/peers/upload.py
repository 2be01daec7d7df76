"""Uploads with http.client, each time over a new connection. Prints status and length of each answer."""

import http.client
import ssl
import sys
import time

port, path, cafile, version, length, tries, pause = sys.argv[1:]
context = ssl.create_default_context(cafile=cafile)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
half = bytes(int(length) // 2)


def body():
    """Its second half comes after the pause, in seconds."""
    yield half
    time.sleep(float(pause))
    yield half


for _ in range(int(tries)):
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context)
    try:
        connection.request("POST", path, body(), {"Content-Length": str(2 * len(half))})
        answer = connection.getresponse()
        print(answer.status, len(answer.read()))
    except (OSError, http.client.HTTPException) as error:
        print(repr(error))
    connection.close()
