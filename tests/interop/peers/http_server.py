"""Answers HTTP/1.1 requests after a moment, each connection in a thread. Prints the port, then how each connection was ended."""

import socket
import ssl
import sys
import threading
import time

cert, key, host = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
printing = threading.Lock()
listener = socket.create_server((host, 0), backlog=1000)
print("port", listener.getsockname()[1], flush=True)


def serve(tcp):
    try:
        tls = context.wrap_socket(tcp, server_side=True, suppress_ragged_eofs=False)
        head = b""
        while data := tls.recv(65536):
            head += data
            if head.endswith(b"\r\n\r\n"):
                # So long that all requests are there, each on a connection of its own.
                time.sleep(0.5)
                tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                head = b""
        tls.unwrap().close()
        end = "close_notify"
    except OSError as error:
        end = type(error).__name__
    with printing:
        print("ended", end, flush=True)


while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
