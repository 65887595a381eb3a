// A line to a server that can be cut: who calls meanwhile waits until it is mended, so a client is away for as long as a test
// wants, and no attempt of it fails.

import { once } from 'node:events';
import net from 'node:net';

export class Line {
  static async to(port) {
    const self = new Line();
    self.ends = new Set();
    self.waiting = null;
    self.entry = net.createServer((near) => {
      self.keep(near);
      if (self.waiting) self.waiting.push(near);
      else self.join(near);
    });
    self.target = port;
    self.entry.listen(0, '127.0.0.1');
    await once(self.entry, 'listening');
    return self;
  }

  get port() {
    return this.entry.address().port;
  }

  cut() {
    this.waiting = [];
    for (const end of this.ends) end.destroy();
  }

  /** Takes nothing more from the server, as a client that does not read. */
  hold() {
    for (const end of this.ends) end.pause();
  }

  go_on() {
    for (const end of this.ends) end.resume();
  }

  mend() {
    const waiting = this.waiting.filter((near) => !near.destroyed);
    this.waiting = null;
    for (const near of waiting) this.join(near);
  }

  close() {
    this.entry.close();
    for (const end of this.ends) end.destroy();
  }

  join(near) {
    const far = this.keep(net.connect(this.target, '127.0.0.1'));
    near.pipe(far);
    far.pipe(near);
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
  }

  keep(end) {
    this.ends.add(end);
    end.on('error', () => {});
    end.on('close', () => this.ends.delete(end));
    return end;
  }
}
