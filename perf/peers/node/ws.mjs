// The broadcast server of ws's documentation: one loop over all sockets; POST /publish sends the body to each.
import { createServer } from "node:http";
import { WebSocket, WebSocketServer } from "ws";

const subscribers = new WebSocketServer({ noServer: true, perMessageDeflate: false, skipUTF8Validation: true });

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const message = Buffer.concat(parts);
    for (const subscriber of subscribers.clients) {
      if (subscriber.readyState === WebSocket.OPEN) subscriber.send(message, { binary: false });
    }
    response.writeHead(202, { "content-length": 0 }).end();
  });
});

server.on("upgrade", (request, socket, head) => {
  socket.setNoDelay(true);
  subscribers.handleUpgrade(request, socket, head, (subscriber) => subscriber.on("error", () => subscriber.terminate()));
});
server.keepAliveTimeout = 0;
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
