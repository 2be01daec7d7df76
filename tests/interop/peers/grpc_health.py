"""Watches a gRPC server's health, and asks for it, while the server drains. Prints what it is told.

The messages are encoded by hand: a request has the name of the service in field 1, a response the status.
"""

import sys

import grpc

port, cafile = sys.argv[1:]
with open(cafile, "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
channel = grpc.secure_channel(f"localhost:{port}", credentials, options=[("grpc.enable_http_proxy", 0)])
check = channel.unary_unary("/grpc.health.v1.Health/Check")
watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
greet = channel.unary_unary("/example.Greeter/Greet")
GREETER = b"\x0a\x0fexample.Greeter"
STATUS = {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}

watching = watch(GREETER)
for response in watching:
    print("watch", STATUS[response], flush=True)
    # A probe asks at intervals. The drain waits until it has heard "not serving" twice.
    for _ in range(2):
        greeting = greet(b"\x0a\x03you")[2:]
        print("check", STATUS[check(GREETER)], greeting[:9].decode(), flush=True)
print("watch ends with", watching.code().name)
