// A WebSocket client whose TCP outlives its Close frame: libraries end the connection together with the session.

import net from 'node:net';
import { Arrivals, within } from './bounded.mjs';
import { APP } from './server.mjs';

export class Lingering {
  /** A client past the handshake, with its `socketId`; `frames` has the messages, and a Close as {event: 'close'}. */
  static async connect(server) {
    const self = new Lingering();
    self.frames = new Arrivals('frames of a lingering client');
    self.rest = Buffer.alloc(0);
    self.isUpgraded = false;
    self.socket = net.connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true });
    self.socket.on('data', (bytes) => self.read(bytes));
    self.socket.on('error', (error) => self.frames.end(String(error)));
    await within(new Promise((resolve) => self.socket.once('connect', resolve)), 'a connection');
    self.socket.write(`GET /app/${APP.key}?protocol=7 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`);
    const [first] = await self.frames.first(1);
    self.socketId = JSON.parse(first.data).socket_id;
    return self;
  }

  send(message) {
    this.write(0x81, Buffer.from(JSON.stringify(message)));
  }

  /** Sends a Close frame, and keeps TCP open whatever comes. */
  close(code) {
    this.write(0x88, Buffer.from([code >> 8, code & 0xff]));
  }

  /** One masked frame; a mask of zeros is a mask. */
  write(first, payload) {
    const length = payload.length < 126 ? [0x80 | payload.length] : [0x80 | 126, payload.length >> 8, payload.length & 0xff];
    this.socket.write(Buffer.concat([Buffer.from([first, ...length, 0, 0, 0, 0]), payload]));
  }

  read(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    if (!this.isUpgraded) {
      const end = this.rest.indexOf('\r\n\r\n');
      if (end < 0) return;
      this.isUpgraded = true;
      this.rest = this.rest.subarray(end + 4);
    }
    while (this.rest.length >= 2) {
      const isLong = this.rest[1] === 126;
      const start = isLong ? 4 : 2;
      if (this.rest.length < start) return;
      const length = isLong ? this.rest.readUInt16BE(2) : this.rest[1];
      if (this.rest.length < start + length) return;
      const payload = this.rest.subarray(start, start + length);
      const isText = (this.rest[0] & 0x0f) === 1;
      this.rest = this.rest.subarray(start + length);
      this.frames.add(isText ? { text: payload.toString(), ...JSON.parse(payload.toString()) } : { event: 'close' });
    }
  }

  end() {
    this.socket.destroy();
  }
}
