"""Takes TLS off a connection, or does not, as `mode` says. Prints its port if it is a server, then what it hears in plaintext.

- initiate: closes first, and waits for the answer
- reply: waits for close_notify, and answers it
- plaintext: goes on in plaintext without close_notify
- end: ends its half of TCP instead
- silent: does nothing
"""

import socket
import ssl
import sys

role, port, cert, key, version, mode = sys.argv[1:]
if role == "server":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
else:
    context = ssl.create_default_context(cafile=cert)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
if role == "server":
    listener = socket.create_server(("127.0.0.1", 0))
    print("port", listener.getsockname()[1], flush=True)
    tcp, _ = listener.accept()
    tls = context.wrap_socket(tcp, server_side=True)
else:
    tls = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))), server_hostname="127.0.0.1")

if mode == "reply":
    assert tls.recv(1) == b""
if mode in ("initiate", "reply"):
    plain = tls.unwrap()
else:
    plain = socket.socket(fileno=tls.detach())
if mode in ("initiate", "reply", "plaintext"):
    plain.sendall(b"python in plain\n")
if mode == "end":
    plain.shutdown(socket.SHUT_WR)
heard = b""
while data := plain.recv(100):
    heard += data
print("heard", heard)
