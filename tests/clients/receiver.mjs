// A back end that webhooks are sent to: records every request, and answers as a suite says, or not at all.

import http from 'node:http';
import https from 'node:https';
import { once } from 'node:events';
import Library from 'pusher';
import { Arrivals } from './bounded.mjs';
import { APP } from './server.mjs';

export class Receiver {
  /**
   * `behave` is asked with each request, and gives a status, `{ status, body }`, a promise of one, or `null` to hang.
   * `tls` has the key and the certificate of an https one.
   */
  static async start(behave = () => 200, tls = undefined) {
    const receiver = new Receiver();
    receiver.behave = behave;
    receiver.requests = new Arrivals('requests to the receiver');
    receiver.events = new Arrivals('events that the receiver took');
    receiver.open = 0;
    receiver.most = 0;
    const answer = (request, response) => receiver.receive(request, response);
    receiver.server = tls ? https.createServer(tls, answer) : http.createServer(answer);
    receiver.server.listen(0, '127.0.0.1');
    await once(receiver.server, 'listening');
    const { port } = receiver.server.address();
    receiver.url = `http${tls ? 's' : ''}://127.0.0.1:${port}`;
    return receiver;
  }

  async receive(request, response) {
    this.open += 1;
    this.most = Math.max(this.most, this.open);
    response.on('close', () => (this.open -= 1));
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const rawBody = Buffer.concat(pieces).toString();
    const { headers, method, url } = request;
    const taken = { method, url, headers, rawBody, body: JSON.parse(rawBody) };
    this.requests.add(taken);
    const answer = await this.behave(taken);
    if (answer === null) return;
    const { status, body = '' } = typeof answer === 'number' ? { status: answer } : answer;
    if (status >= 200 && status < 300) {
      for (const event of taken.body.events ?? []) this.events.add({ ...event, request: taken });
    }
    response.writeHead(status, { 'content-type': 'application/json' }).end(body);
  }

  /** What the server library makes of a request: its signature and its key are checked. */
  static checked({ headers, rawBody }) {
    const back = new Library({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1' });
    return back.webhook({ headers, rawBody });
  }

  async close() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}
