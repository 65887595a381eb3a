// Real clients of one server: pusher-js, the `pusher` server library, and a raw WebSocket that records every frame.

import http from 'node:http';
import Library from 'pusher';
import PusherJs from 'pusher-js';
import WebSocket from 'ws';
import { Arrivals, within } from './bounded.mjs';
import { APP } from './server.mjs';

// When the server has closed it for good, pusher-js closes its WebSocket once more, and that sets a timer of 30 s that
// nothing clears. It goes off all the same where something else goes on, but holds no suite that is over.
const { setTimeout: set } = globalThis;
globalThis.setTimeout = (callback, ms, ...rest) => {
  const timer = set(callback, ms, ...rest);
  return ms === 30_000 ? timer.unref() : timer;
};

/** The npm `pusher` server library. With `keepAlive` it reuses connections; without it makes one for each call. */
export function library(server, { keepAlive = true, ...options } = {}) {
  const agent = new http.Agent({ keepAlive });
  const pusher = new Library({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: server.port, useTLS: false, agent, timeout: 20_000, ...options });
  pusher.hangUp = () => agent.destroy();
  return pusher;
}

/** What a private subscription needs, answered by the server library as a back end would; `member` joins presence channels. */
export function authorizer(back, member) {
  return {
    customHandler: ({ socketId, channelName }, callback) => {
      try {
        callback(null, back.authorizeChannel(socketId, channelName, channelName.startsWith('presence-') ? member : undefined));
      } catch (error) {
        callback(error, null);
      }
    },
  };
}

/** A pusher-js client that is not connected yet; `states` and `errors` record what its connection says. */
export function pusherJs(server, options = {}, key = APP.key) {
  const client = new PusherJs(key, {
    wsHost: '127.0.0.1',
    wsPort: server.port,
    forceTLS: false,
    enabledTransports: ['ws'],
    disableStats: true,
    cluster: 'none',
    ...options,
  });
  client.states = new Arrivals('states of pusher-js');
  client.errors = new Arrivals('errors of pusher-js');
  client.connection.bind('state_change', ({ current }) => client.states.add(current));
  client.connection.bind('error', (error) => client.errors.add(error));
  return client;
}

/** The {code, message} of the server in what pusher-js reports as an error. */
export function complaint(error) {
  return error.data ?? error.error?.data ?? error.error ?? {};
}

/** Subscribes and waits for the answer; `arrivals` has every event of the channel as [name, data]. */
export async function subscribed(client, name) {
  const channel = client.subscribe(name);
  channel.arrivals = new Arrivals(`events of ${name}`);
  channel.bind_global((event, data) => channel.arrivals.add([event, data]));
  const [event, data] = await channel.arrivals.find(([event]) => event.startsWith('pusher:subscription_'), `an answer to subscribing`);
  if (event !== 'pusher:subscription_succeeded') throw new Error(`subscribing to ${name}: ${event} ${JSON.stringify(data)}`);
  return channel;
}

/** The application's events of a channel, without the protocol's own. */
export function events(channel) {
  return channel.arrivals.all.filter(([name]) => !name.startsWith('pusher:'));
}

/** A raw WebSocket. `frames` has every message decoded; `closed` resolves to {code, reason}. */
export class Raw {
  constructor(server, path, options = { perMessageDeflate: false }) {
    this.socket = new WebSocket(`ws://127.0.0.1:${server.port}${path}`, options);
    this.frames = new Arrivals(`frames of ${path}`);
    this.socket.on('message', (bytes, isBinary) => {
      const text = bytes.toString();
      this.frames.add(isBinary ? { binary: text } : { text, ...JSON.parse(text) });
    });
    this.failed = null;
    this.socket.on('error', (error) => (this.failed = error));
    this.ended = new Promise((resolve) => this.socket.on('close', (code, reason) => {
      this.frames.end(`closed with ${code} ${reason} ${this.failed ?? ''}`);
      resolve({ code, reason: reason.toString(), error: this.failed });
    }));
  }

  /** A raw client past the handshake, with its `socketId` and `activityTimeout` (seconds). */
  static async connect(server, query = 'protocol=7&client=raw&version=1.0', options) {
    const raw = new Raw(server, `/app/${APP.key}?${query}`, options);
    const [first] = await raw.frames.first(1);
    if (first.event !== 'pusher:connection_established') throw new Error(`the first message is ${first.text}`);
    const data = JSON.parse(first.data);
    raw.socketId = data.socket_id;
    raw.activityTimeout = data.activity_timeout;
    return raw;
  }

  send(message) {
    this.socket.send(typeof message === 'string' ? message : JSON.stringify(message));
  }

  closed(ms) {
    return within(this.ended, () => `the server to close, got ${JSON.stringify(this.frames.all)}`, ms);
  }

  /** Everything that the server sent before it answered a ping that is sent now. */
  async settled() {
    const from = this.frames.length;
    this.send({ event: 'pusher:ping', data: {} });
    await this.frames.find(({ event }) => event === 'pusher:pong', 'a pong', undefined, from);
    return this.frames.all;
  }

  end() {
    this.socket.terminate();
  }
}
