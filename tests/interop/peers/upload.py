"""Uploads with http.client, each time over a new connection. Prints status and length of each answer."""

import http.client
import ssl
import sys

port, path, cafile, version, length, tries = sys.argv[1:]
context = ssl.create_default_context(cafile=cafile)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
body = bytes(int(length))
for _ in range(int(tries)):
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        print(answer.status, len(answer.read()))
    except (OSError, http.client.HTTPException) as error:
        print(repr(error))
    connection.close()
