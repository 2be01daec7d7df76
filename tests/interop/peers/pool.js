// Sends POST requests one after the other through an agent of one connection. Prints how many were answered.
// Every other request has a large body and goes to a path that does not exist, so that the server answers before it has read the body.
const fs = require("fs");
const https = require("https");

const [port, cafile] = process.argv.slice(2);
const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: fs.readFileSync(cafile) });

function post(path, body) {
  return new Promise((resolve) => {
    const failed = (error) => {
      console.error(error.code);
      resolve(0);
    };
    const options = { host: "127.0.0.1", port, path, method: "POST", agent, headers: { "Content-Length": body.length } };
    const request = https.request(options, (response) => {
      response.resume();
      response.on("end", () => resolve(1));
      response.on("error", failed);
    });
    request.on("error", failed);
    request.end(body);
  });
}

(async () => {
  let answered = 0;
  for (let pair = 0; pair < 40; pair++) {
    answered += await post("/unknown", Buffer.alloc(60000));
    answered += await post("/count", Buffer.from("small"));
  }
  agent.destroy();
  console.log(answered);
})();
