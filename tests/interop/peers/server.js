// Reads connections to their ends, and lets Node answer. Prints the port, then how much it read of each connection.
const fs = require("fs");
const tls = require("tls");

const [cert, key, version] = process.argv.slice(2);
const protocol = `TLSv${version}`;
const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), minVersion: protocol, maxVersion: protocol };
const server = tls.createServer(options, (socket) => {
  let received = 0;
  socket.on("data", (data) => (received += data.length));
  socket.on("end", () => console.log(received));
});
server.listen(0, "127.0.0.1", () => console.log("port", server.address().port));
