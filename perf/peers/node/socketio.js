// socket.io on uWebSockets.js: what a client sends as "publish", every client gets as "message".
const { App } = require("@trufflesuite/uws-js-unofficial");
const { Server } = require("socket.io");

const HOUR_MS = 3_600_000;
const port = Number(process.argv[2]);
const app = App();
const io = new Server({ transports: ["websocket"], perMessageDeflate: false, pingInterval: HOUR_MS, serveClient: false });

io.attachApp(app);
io.on("connection", (subscriber) => subscriber.on("publish", (message) => io.emit("message", message)));
app.listen("127.0.0.1", port, (listening) => {
  if (!listening) throw new Error(`port ${port} is taken`);
});
