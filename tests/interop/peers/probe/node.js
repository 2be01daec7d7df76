// Answers each request at once, without reading its body. Prints the port.
const fs = require("fs");
const https = require("https");

const [cert, key] = process.argv.slice(2);
const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
  response.end("hello");
});
server.listen(0, "127.0.0.1", () => console.log("port", server.address().port));
