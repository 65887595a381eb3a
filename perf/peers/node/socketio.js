// socket.io on uWebSockets.js: channels are rooms, and what a client publishes, all in the room get.
const { App } = require("@trufflesuite/uws-js-unofficial");
const { Server } = require("socket.io");

const HOUR_MS = 3_600_000;
const port = Number(process.argv[2]);
const app = App();
const io = new Server({ transports: ["websocket"], perMessageDeflate: false, pingInterval: HOUR_MS, serveClient: false });

io.attachApp(app);
io.on("connection", (subscriber) => {
  subscriber.on("subscribe", (room, done) => {
    subscriber.join(room);
    done();
  });
  subscriber.on("unsubscribe", (room) => subscriber.leave(room));
  subscriber.on("ask", (done) => done());
  subscriber.on("publish", (room, data) => io.to(room).emit(room, data));
});
app.listen("127.0.0.1", port, (listening) => {
  if (!listening) throw new Error(`port ${port} is taken`);
});
