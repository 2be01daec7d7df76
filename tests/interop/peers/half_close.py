"""Makes a request and half-closes in one write, sends more bytes after a delay, then reads slowly. Prints what it received, and the end.

OpenSSL closes only its write half by close_notify, and goes on reading. With HTTP/2, all requests are sent before close_notify.
"""

import socket
import ssl
import sys
import time

port, cafile, version, protocol, path, late, delay = sys.argv[1:]
context = ssl.create_default_context(cafile=cafile)
context.minimum_version = context.maximum_version = ssl.TLSVersion["TLSv" + version.replace(".", "_")]
context.set_alpn_protocols([protocol])
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
tcp = socket.socket()
# The server cannot send far ahead.
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
tcp.connect(("127.0.0.1", int(port)))
while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        tcp.sendall(outgoing.read())
        incoming.write(tcp.recv(65536))
tcp.sendall(outgoing.read())

if protocol == "h2":
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, StreamEnded

    http2 = H2Connection(H2Configuration(header_encoding="utf-8"))
    http2.initiate_connection()
    streams = [1, 3, 5]
    for stream in streams:
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        http2.send_headers(stream, head, end_stream=True)
    tls.write(http2.data_to_send())
else:
    tls.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
try:
    tls.unwrap()
except ssl.SSLWantReadError:
    # close_notify is written.
    pass
tcp.sendall(outgoing.read())
time.sleep(int(delay) / 1000)
tcp.sendall(late.encode())

received = b""
try:
    while data := tcp.recv(65536):
        incoming.write(data)
        try:
            while part := tls.read(65536):
                received += part
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLZeroReturnError:
            pass
        end = "close_notify"
        break
    else:
        end = "fin"
except OSError as error:
    end = type(error).__name__
if protocol == "h2":
    events = http2.receive_data(received)
    length = sum(len(event.data) for event in events if isinstance(event, DataReceived))
    whole = sum(isinstance(event, StreamEnded) for event in events)
    print(length, whole, end)
else:
    print(len(received.partition(b"\r\n\r\n")[2]), end)
