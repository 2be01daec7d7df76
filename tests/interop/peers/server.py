"""Reads so many connections to their ends, and closes as `mode` says. Prints the port, then how much it read of each."""

import socket
import ssl
import sys

cert, key, version, mode, connections = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
for _ in range(int(connections)):
    tcp, _ = listener.accept()
    tls = context.wrap_socket(tcp, server_side=True, suppress_ragged_eofs=False)
    received = 0
    try:
        while data := tls.recv(65536):
            received += len(data)
            # The sender waits for our close_notify before it sends its own.
            if mode == "first" and received == 3_000_000:
                break
        print(received, flush=True)
    except ssl.SSLEOFError:
        print(received, "truncated", flush=True)
    if mode == "reply":
        tls.sendall(bytes(100_000))
    if mode != "close":
        tls = tls.unwrap()
    tls.close()
