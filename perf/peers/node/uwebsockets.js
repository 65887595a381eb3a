// Publish/subscribe of uWebSockets.js: every socket subscribes to one topic; POST /publish publishes the body to it.
const { App, DISABLED } = require("@trufflesuite/uws-js-unofficial");

const TOPIC = "topic";
const port = Number(process.argv[2]);
const app = App();

app.ws("/*", {
  compression: DISABLED,
  idleTimeout: 0,
  sendPingsAutomatically: false,
  maxBackpressure: 1024 * 1024 * 1024,
  open: (subscriber) => subscriber.subscribe(TOPIC),
});
app.post("/publish", (response) => {
  let message = Buffer.alloc(0);
  response.onAborted(() => {});
  response.onData((part, isLast) => {
    message = Buffer.concat([message, Buffer.from(part)]);
    if (!isLast) return;
    app.publish(TOPIC, message, false);
    response.writeStatus("202 Accepted").end();
  });
});
app.listen("127.0.0.1", port, (listening) => {
  if (!listening) throw new Error(`port ${port} is taken`);
});
