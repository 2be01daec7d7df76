// Makes one request; closes when the body is whole, or after the server. Prints the length of the body.
const fs = require("fs");
const tls = require("tls");

const [port, path, cafile, version] = process.argv.slice(2);
const protocol = `TLSv${version}`;
const ca = fs.readFileSync(cafile);
const socket = tls.connect({ host: "127.0.0.1", port, ca, minVersion: protocol, maxVersion: protocol }, () => {
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
});
let received = Buffer.alloc(0);
let length = 0;
socket.on("data", (data) => {
  received = Buffer.concat([received, data]);
  const head = received.indexOf("\r\n\r\n");
  if (head < 0) return;
  length = received.length - head - 4;
  const due = /content-length: (\d+)/i.exec(received.toString("latin1", 0, head));
  if (due && length >= Number(due[1])) socket.end();
});
socket.on("close", () => console.log(length));
