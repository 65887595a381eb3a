// One client's place in a presence channel, kept in step with what the server tells it.
//
// A roster is the acknowledgement's, changed by each arrival and departure that follows. Where those do not fit together
// (an arrival of one who is there, a departure of one who is not), the seat says so: that is a lost, repeated or
// misplaced message.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { APP } from './server.mjs';

/** The fields of a subscription, signed by hand; `channelData` is the text itself, so that anything can stand in it. */
export function signed(raw, channel, channelData) {
  const text = channelData === undefined ? `${raw.socketId}:${channel}` : `${raw.socketId}:${channel}:${channelData}`;
  const signature = createHmac('sha256', APP.secret).update(text).digest('hex');
  return { channel, auth: `${APP.key}:${signature}`, ...(channelData === undefined ? {} : { channel_data: channelData }) };
}

export class Seat {
  constructor(raw, channel) {
    this.raw = raw;
    this.channel = channel;
    this.read = raw.frames.length;
    /** Who it joined as last. */
    this.user = null;
    /** id as a string -> user_info; nothing before the first acknowledgement. */
    this.roster = null;
    /** The acknowledgements, their `presence` read. */
    this.acknowledgements = [];
    /** ['added' | 'removed', user_id as it came]. */
    this.changes = [];
    /** The application's events, as {event, data, user_id?, period}: periods are counted by acknowledgements. */
    this.events = [];
    this.faults = [];
  }

  /** Asks to join as `user`: {user_id, user_info}, or the text of the channel data. */
  ask(user) {
    this.raw.send({ event: 'pusher:subscribe', data: signed(this.raw, this.channel, typeof user === 'string' ? user : JSON.stringify(user)) });
  }

  /** Joins, and returns the acknowledgement's `presence`. */
  async join(user) {
    const before = this.acknowledgements.length;
    this.user = user;
    this.ask(user);
    await this.until(() => this.acknowledgements.length > before, () => `an acknowledgement of ${this.channel} for ${JSON.stringify(user)}`);
    return this.acknowledgements[before];
  }

  leave() {
    this.raw.send({ event: 'pusher:unsubscribe', data: { channel: this.channel } });
  }

  /** Waits until the roster holds exactly these ids. */
  async holds(ids) {
    const wanted = [...ids].map(String).sort();
    await this.until(() => this.roster && same([...this.roster.keys()].sort(), wanted), () => `a roster of ${wanted}, got ${this.roster && [...this.roster.keys()].sort()}`);
    this.check();
  }

  /** Waits until it was told what makes `holds` true. */
  async until(holds, what) {
    await this.raw.frames.until(() => (this.catchUp(), holds()), what);
  }

  check() {
    this.catchUp();
    assert.deepEqual(this.faults, [], `${this.channel} as told to ${this.raw.socketId}`);
  }

  catchUp() {
    for (; this.read < this.raw.frames.length; this.read += 1) {
      const frame = this.raw.frames.all[this.read];
      if (frame.channel === this.channel) this.take(frame);
    }
  }

  take(frame) {
    const fault = (what) => this.faults.push(`${what}: ${frame.text}`);
    if (frame.event === 'pusher_internal:subscription_succeeded') {
      const { presence } = JSON.parse(frame.data);
      this.acknowledgements.push(presence);
      this.roster = new Map(presence.ids.map((id) => [id, presence.hash[id]]));
      if (presence.count !== presence.ids.length || this.roster.size !== presence.count) fault('the count is not that of the ids');
      if (!same(Object.keys(presence.hash).sort(), [...presence.ids].sort())) fault('ids and hash differ');
    } else if (this.roster === null) {
      if (!frame.event.startsWith('pusher:')) fault('before the acknowledgement');
    } else if (frame.event === 'pusher_internal:member_added') {
      const { user_id, user_info } = JSON.parse(frame.data);
      if (this.roster.has(String(user_id))) fault('an arrival of one who is there');
      this.roster.set(String(user_id), user_info);
      this.changes.push(['added', user_id]);
    } else if (frame.event === 'pusher_internal:member_removed') {
      const { user_id } = JSON.parse(frame.data);
      if (!this.roster.delete(String(user_id))) fault('a departure of one who is not there');
      this.changes.push(['removed', user_id]);
    } else if (!frame.event.startsWith('pusher')) {
      const { text, channel, ...event } = frame;
      this.events.push({ ...event, period: this.acknowledgements.length });
    }
  }
}

function same(one, other) {
  return one.length === other.length && one.every((thing, index) => thing === other[index]);
}
