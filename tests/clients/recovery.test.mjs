// Serials, resume and rewind: what a client missed, it gets; what it cannot get, it is told.
//
// Each promise was broken on purpose once, as tests/simulation.rs says, and seeds of the simulation failed; here the seam between
// what is retained and what is live is crossed by real sockets.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { Arrivals } from './bounded.mjs';
import { authorizer, subscribed } from './clients.mjs';
import { group, mark } from './group.mjs';
import { signed } from './roster.mjs';
import { APP } from './server.mjs';

const KEPT = 'retained_channels = "kept-* private-kept-* presence-kept-* cache-kept-*"\n';

/** What a raw client is told of a channel, its events as [serial, data]. */
class Reader {
  constructor(raw, name) {
    this.raw = raw;
    this.name = name;
    this.read = raw.frames.length;
  }

  /** Subscribes, with `more` fields, and waits for the answer: `at` is its data. */
  async subscribe(more = {}, fields = { channel: this.name }) {
    this.raw.send({ event: 'pusher:subscribe', data: { ...fields, ...more } });
    const ours = ({ channel, event }) => channel === this.name && event.startsWith('pusher');
    const answer = await this.raw.frames.find(ours, `an answer for ${this.name}`, undefined, this.read);
    assert.equal(answer.event, 'pusher_internal:subscription_succeeded', answer.text);
    this.at = JSON.parse(answer.data);
    return this;
  }

  get told() {
    return this.raw.frames.all.slice(this.read).filter(({ channel, event }) => channel === this.name && !event.startsWith('pusher'));
  }

  get events() {
    return this.told.filter(({ event }) => event !== 'outpour:gap').map(({ serial, data }) => [serial, value(data)]);
  }

  /** Waits for the event with this data, and gives all that came. */
  async until(data) {
    const is = (frame) => frame.channel === this.name && !frame.event.startsWith('pusher') && isDeepStrictEqual(value(frame.data), data);
    await this.raw.frames.find(is, `the event ${JSON.stringify(data)} of ${this.name}`, undefined, this.read);
    return this.events;
  }
}

/** What was published: the server library sends text as it is, and everything else as JSON. */
function value(data) {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}

for (const shards of [1, 4]) {
  describe(`channels with serials, ${shards} shards`, () => {
    const made = group({ shards, config: KEPT });
    const reader = async (name, more, fields) => new Reader(await made.raw(), name).subscribe(more, fields);
    const publish = (name, data) => made.back.trigger(name, 'tick', data);

    test('every subscriber sees the same contiguous serials, and stock clients pass over them', async () => {
      const name = 'kept-same';
      const stock = await subscribed(await made.join(), name);
      const readers = [];
      for (let n = 0; n < 8; n += 1) readers.push(await reader(name));
      for (const { at } of readers) assert.deepEqual(at, { epoch: readers[0].at.epoch, serial: 0 });
      assert.match(readers[0].at.epoch, /^[0-9a-f]{16}$/);
      for (let n = 1; n <= 20; n += 1) await publish(name, { n });
      const expected = Array.from({ length: 20 }, (_, n) => [n + 1, { n: n + 1 }]);
      for (const one of readers) assert.deepEqual(await one.until({ n: 20 }), expected);
      assert.deepEqual(await mark(made.back, stock), expected.map(([, data]) => ['tick', data]));
      const late = await reader(name);
      assert.deepEqual(late.at, { epoch: readers[0].at.epoch, serial: 21 });
    });

    // Broken on purpose once by leaving out what other shards tell: it failed on 4 shards.
    test('a publisher that asks is told the serials of its events, of every channel', async () => {
      const names = Array.from({ length: 8 }, (_, n) => `kept-told-${n}`);
      const info = 'serial,subscription_count';
      const readers = await Promise.all(names.map((name) => reader(name)));
      await publish(names[3], 'before');
      const answer = await made.back.trigger([...names, 'plain-told'], 'tick', 'all', { info }).then((response) => response.json());
      const expected = names.map((name, n) => [name, { subscription_count: 1, epoch: readers[n].at.epoch, serial: n === 3 ? 2 : 1 }]);
      assert.deepEqual(answer, { channels: Object.fromEntries([...expected, ['plain-told', { subscription_count: 0 }]]) });
      for (const [n, one] of readers.entries()) assert.equal((await one.until('all')).at(-1)[0], expected[n][1].serial);

      const event = (channel, more) => ({ channel, name: 'tick', data: 'batch', ...more });
      const batch = [event(names[0], { info: 'serial' }), event(names[1]), event(names[0], { info: 'serial' }), event('plain-told', { info: 'serial' })];
      const { epoch } = readers[0].at;
      const told = await made.back.triggerBatch(batch).then((response) => response.json());
      assert.deepEqual(told, { batch: [{ epoch, serial: 2 }, {}, { epoch, serial: 3 }, {}] });
      assert.deepEqual(await publish(names[0], 'quiet').then((response) => response.json()), {});
    });

    test('a client resumes in its address, without a further round trip', async () => {
      const name = 'kept-address';
      const { at: { epoch } } = await reader(name);
      for (let n = 1; n <= 20; n += 1) await publish(name, n);
      const data = JSON.stringify({ channel: name, resume: { epoch, serial: 5 } });
      const raw = await made.raw(`protocol=7&subscribe=${encodeURIComponent(data)}&subscribe=plain`);
      await publish(name, 21);
      const from = (await raw.frames.first(2))[1];
      assert.deepEqual(JSON.parse(from.data), { epoch, serial: 5, recovered: true });
      await raw.frames.find(({ data }) => data === '21', 'the live event');
      const events = raw.frames.all.filter(({ event, channel }) => event === 'tick' && channel === name);
      assert.deepEqual(events.map(({ serial }) => serial), Array.from({ length: 16 }, (_, n) => n + 6));
      await raw.frames.find(({ event, channel }) => event === 'pusher_internal:subscription_succeeded' && channel === 'plain', 'the other channel');
    });

    test('a channel that no pattern names has no serials, and says nothing of them', async () => {
      const one = await reader('plain', { rewind: 5 });
      assert.deepEqual(one.at, {});
      await publish('plain', 1);
      assert.deepEqual(await one.until(1), [[undefined, 1]]);
    });

    test('clients that come back while others publish get what they missed, then live events', async () => {
      const name = 'kept-back';
      let isOver = false;
      let published = 0;
      const publishing = (async () => {
        for (; !isOver; published += 1) await publish(name, published + 1);
      })();
      const places = [];
      for (let n = 0; n < 12; n += 1) {
        const one = await reader(name);
        await one.raw.frames.until(() => one.events.length > 3, 'some events');
        one.raw.end();
        const events = one.events;
        assert.deepEqual(events.map(([serial]) => serial), Array.from(events, (_, k) => one.at.serial + 1 + k));
        places.push({ epoch: one.at.epoch, serial: events.at(-1)[0] });
      }
      const readers = [];
      for (const resume of places) readers.push(await reader(name, { resume }));
      isOver = true;
      await publishing;
      await publish(name, 'end');
      for (const [n, one] of readers.entries()) {
        assert.deepEqual(one.at, { ...places[n], recovered: true });
        const all = Array.from({ length: published - one.at.serial }, (_, k) => [one.at.serial + 1 + k, one.at.serial + 1 + k]);
        assert.deepEqual(await one.until('end'), [...all, [published + 1, 'end']]);
      }
    });

    test('a client goes back by a number of events or a time', async () => {
      const name = 'kept-rewind';
      for (let n = 1; n <= 30; n += 1) await publish(name, n);
      const all = Array.from({ length: 30 }, (_, n) => [n + 1, n + 1]);
      for (const [rewind, from] of [[5, 25], [30, 0], [999, 0], ['1h', 0]]) {
        const one = await reader(name, { rewind });
        assert.equal(one.at.serial, from);
        assert.deepEqual(await one.until(30), all.slice(from));
      }
      const none = await reader(name, { rewind: 0 });
      await publish(name, 31);
      assert.deepEqual(await none.until(31), [[31, 31]]);
    });

    test('compressed connections, private and cache channels resume too', async () => {
      const text = 'and so on '.repeat(100);
      for (const name of ['kept-deflated', 'private-kept-room', 'cache-kept-room']) {
        const first = new Reader(await made.raw(undefined, { perMessageDeflate: true }), name);
        const fields = (raw) => (name.startsWith('private-') ? signed(raw, name) : { channel: name });
        await first.subscribe({}, fields(first.raw));
        for (let n = 1; n <= 5; n += 1) await publish(name, { n, text });
        await first.until({ n: 5, text });
        for (let n = 6; n <= 9; n += 1) await publish(name, { n, text });
        await first.until({ n: 9, text });
        const again = new Reader(await made.raw(undefined, { perMessageDeflate: true }), name);
        await again.subscribe({ resume: { epoch: first.at.epoch, serial: 5 } }, fields(again.raw));
        await publish(name, 'live');
        const serials = (await again.until('live')).map(([serial]) => serial);
        assert.deepEqual(serials, [6, 7, 8, 9, 10]);
      }
    });

    test('a connection that an event excludes does not get it by going back either', async () => {
      const name = 'kept-excluded';
      const [one, other] = [await made.raw(), await made.raw()];
      await publish(name, 1);
      await made.back.trigger(name, 'tick', 2, { socket_id: one.socketId });
      await publish(name, 3);
      const [excluded, witness] = [new Reader(one, name), new Reader(other, name)];
      await excluded.subscribe({ rewind: 9 });
      await witness.subscribe({ rewind: 9 });
      assert.deepEqual(await excluded.until(3), [[1, 1], [3, 3]]);
      assert.deepEqual(await witness.until(3), [[1, 1], [2, 2], [3, 3]]);
    });

    // Broken on purpose by leaving out the former connection where homes are asked for more: it failed.
    test('nor does it get it over the connection with which it comes back, if it says which it was', async () => {
      const name = 'kept-excluded-again';
      const one = await made.raw();
      const before = new Reader(one, name);
      await before.subscribe();
      const { epoch } = before.at;
      await reader(name);
      one.end();
      await publish(name, 1);
      await made.back.trigger(name, 'tick', 2, { socket_id: one.socketId });
      await publish(name, 3);
      const resume = { epoch, serial: 0 };
      const again = await reader(name, { resume: { ...resume, socket_id: one.socketId } });
      assert.deepEqual(again.at, { epoch, serial: 0, recovered: true });
      assert.deepEqual(await again.until(3), [[1, 1], [3, 3]]);
      for (const socket_id of [undefined, '1.2', again.raw.socketId]) {
        const other = await reader(name, { resume: { ...resume, socket_id } });
        assert.deepEqual(await other.until(3), [[1, 1], [2, 2], [3, 3]]);
      }
      const refused = await made.raw();
      refused.send({ event: 'pusher:subscribe', data: { channel: name, resume: { ...resume, socket_id: 'mine' } } });
      assert.match((await refused.frames.first(2))[1].text, /data\.resume has an epoch, a serial/);
    });

    test('on a presence channel the roster comes as ever, and events are resumed', async () => {
      const name = 'presence-kept-room';
      const fields = (raw, user) => signed(raw, name, JSON.stringify({ user_id: user }));
      const first = new Reader(await made.raw(), name);
      await first.subscribe({}, fields(first.raw, 'a'));
      assert.deepEqual(first.at.presence.ids, ['a']);
      await publish(name, 1);
      await first.until(1);
      const second = new Reader(await made.raw(), name);
      await second.subscribe({ resume: { epoch: first.at.epoch, serial: 0 } }, fields(second.raw, 'b'));
      assert.deepEqual(second.at.presence.ids, ['a', 'b']);
      assert.deepEqual([second.at.serial, second.at.recovered], [0, true]);
      await publish(name, 2);
      assert.deepEqual(await second.until(2), [[1, 1], [2, 2]]);
      const channelAuthorization = authorizer(made.back, { user_id: 'c', user_info: {} });
      const stock = await subscribed(await made.join({ channelAuthorization }), name);
      assert.equal(stock.members.count, 3);
    });

    test('a serial that was never given is refused, and so is what says nothing', async () => {
      const name = 'kept-wrong';
      const { at } = await reader(name);
      const raw = await made.raw();
      raw.send({ event: 'pusher:subscribe', data: { channel: name, resume: { epoch: at.epoch, serial: 7 } } });
      const refusal = await raw.frames.find(({ event }) => event === 'pusher:subscription_error', 'a refusal');
      assert.equal(refusal.channel, name);
      raw.send({ event: 'pusher:subscribe', data: { channel: name, rewind: 'soon' } });
      await raw.frames.find(({ event }) => event === 'pusher:error', 'an error');
      raw.send({ event: 'pusher:subscribe', data: { channel: name } });
      await raw.frames.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer');
    });
  });
}

/** A stream of Server-Sent Events: `messages` has each as {id, ...message}. */
async function stream(made, name, headers = {}, params = {}) {
  const path = `/apps/${APP.id}/channels/${name}/events`;
  const query = made.back.createSignedQueryString({ method: 'GET', path, params });
  const ending = new AbortController();
  const response = await fetch(`${made.server.url}${path}?${query}`, { headers: { Accept: 'text/event-stream', ...headers }, signal: ending.signal });
  assert.equal(response.status, 200);
  const messages = new Arrivals(`messages of the stream of ${name}`);
  (async () => {
    let text = '';
    for await (const bytes of response.body.pipeThrough(new TextDecoderStream())) {
      text += bytes;
      for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
        const fields = Object.fromEntries(text.slice(0, end).split('\n').map((line) => line.split(/: (.*)/s)));
        text = text.slice(end + 2);
        if (fields.data) messages.add({ id: fields.id, ...JSON.parse(fields.data) });
      }
    }
  })().catch(() => messages.end('the stream ended'));
  return { messages, end: () => ending.abort() };
}

/** A session over HTTP: `frames` has every message that its stream brings. */
async function session(made) {
  const name = Array.from({ length: 8 }, () => 'abcdefgh'[Math.floor(Math.random() * 8)]).join('');
  const url = `${made.server.url}/pusher/app/${APP.key}/1/${name}`;
  const ending = new AbortController();
  const response = await fetch(`${url}/xhr_streaming?protocol=7&client=js&version=8.6.0`, { method: 'POST', signal: ending.signal });
  assert.equal(response.status, 200);
  const frames = new Arrivals('messages of the session');
  (async () => {
    let text = '';
    for await (const bytes of response.body.pipeThrough(new TextDecoderStream())) {
      const lines = (text + bytes).split('\n');
      text = lines.pop();
      for (const line of lines.filter((line) => line.startsWith('a'))) for (const message of JSON.parse(line.slice(1))) frames.add(JSON.parse(message));
    }
  })().catch(() => frames.end('the stream ended'));
  await frames.find(({ event }) => event === 'pusher:connection_established', 'a greeting');
  const send = async (message) => {
    const answer = await fetch(`${url}/xhr_send`, { method: 'POST', body: JSON.stringify([JSON.stringify(message)]) });
    assert.equal(answer.status, 204);
  };
  return { frames, send, end: () => ending.abort() };
}

for (const shards of [1, 4]) {
  describe(`history and streams, ${shards} shards`, () => {
    const made = group({ shards, config: KEPT });
    const publish = async (name, from, to) => {
      for (let n = from; n <= to; n += 1) await made.back.trigger(name, 'tick', n);
    };
    const page = async (name, params) => {
      const answer = await made.back.get({ path: `/channels/${name}/events`, params });
      assert.equal(answer.status, 200);
      return answer.json();
    };

    test('pages go through everything, forward and backward, by serial', async () => {
      const name = 'kept-history';
      assert.deepEqual((await page(name, { limit: 5 })).events, []);
      await publish(name, 1, 25);
      const all = Array.from({ length: 25 }, (_, n) => ({ event: 'tick', channel: name, data: String(n + 1), serial: n + 1 }));
      const forward = [];
      for (let from = 1; from <= 25;) {
        const { events, next, tail, head, epoch } = await page(name, { from, limit: 10 });
        assert.match(epoch, /^[0-9a-f]{16}$/);
        assert.deepEqual([tail, head, next], [1, 25, from + events.length]);
        forward.push(...events);
        from = next;
      }
      assert.deepEqual(forward, all);
      const backward = [];
      let next;
      do {
        const answer = await page(name, { direction: 'backward', limit: 10, ...(next === undefined ? {} : { from: next }) });
        backward.push(...answer.events);
        ({ next } = answer);
      } while (next !== null);
      assert.deepEqual(backward, all.toReversed());
      // What is to come is asked for by the same number.
      assert.deepEqual((await page(name, { from: 26 })).events, []);
      await publish(name, 26, 26);
      assert.deepEqual((await page(name, { from: 26 })).events.map(({ serial }) => serial), [26]);
      // Two readers of it are told the same, whatever shard they come to.
      const texts = await Promise.all(Array.from({ length: 8 }, async () => JSON.stringify(await page(name, { from: 1, limit: 1000 }))));
      assert.equal(new Set(texts).size, 1);
    });

    test('what cannot be paged is refused', async () => {
      const status = (name, params) => made.back.get({ path: `/channels/${name}/events`, params }).then(() => 200, (error) => error.status);
      assert.equal(await status('plain', { from: 1 }), 404);
      assert.equal(await status('kept-history', { limit: 0 }), 400);
      assert.equal(await status('kept-history', { direction: 'sideways' }), 400);
      const unsigned = await fetch(`${made.server.url}/apps/${APP.id}/channels/kept-history/events?from=1`);
      assert.equal(unsigned.status, 401);
      await unsigned.body.cancel();
    });

    test('a session over HTTP resumes like a WebSocket', async () => {
      const name = 'kept-session';
      const witness = await new Reader(await made.raw(), name).subscribe();
      await publish(name, 1, 60);
      const one = await session(made);
      await one.send({ event: 'pusher:subscribe', data: { channel: name, resume: { epoch: witness.at.epoch, serial: 20 } } });
      await one.frames.find(({ data }) => data === '60', 'the last event that was missed');
      await publish(name, 61, 62);
      await one.frames.find(({ data }) => data === '62', 'the last event');
      const serials = one.frames.all.filter(({ event }) => event === 'tick').map(({ serial }) => serial);
      assert.deepEqual(serials, Array.from({ length: 42 }, (_, n) => 21 + n));
      one.end();
    });

    test('a stream of Server-Sent Events resumes behind the last id, and goes back', async () => {
      const name = 'kept-stream';
      const first = await stream(made, name);
      const answer = await first.messages.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer');
      const { epoch } = JSON.parse(answer.data);
      assert.equal(answer.id, `${epoch}:0`);
      await publish(name, 1, 3);
      const third = await first.messages.find(({ data }) => data === '3', 'the third event');
      assert.equal(third.id, `${epoch}:3`);
      first.end();
      await publish(name, 4, 9);
      const numbers = ({ messages }) => messages.all.filter(({ event }) => event === 'tick').map(({ id, serial, data }) => [id, serial, data]);
      const expected = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => [`${epoch}:${from + n}`, from + n, String(from + n)]);
      const again = await stream(made, name, { 'Last-Event-ID': third.id });
      await again.messages.find(({ data }) => data === '9', 'the ninth event');
      await publish(name, 10, 10);
      await again.messages.find(({ data }) => data === '10', 'the tenth event');
      assert.deepEqual(numbers(again), expected(4, 10));
      const rewound = await stream(made, name, {}, { rewind: 4 });
      await rewound.messages.find(({ data }) => data === '10', 'the tenth event');
      assert.deepEqual(numbers(rewound), expected(7, 10));
      again.end();
      rewound.end();
    });
  });
}

describe('one history', () => {
  const made = group({ shards: 4, config: KEPT });
  const hash = (events) => createHash('sha256').update(JSON.stringify(events)).digest('hex');

  // Broken on purpose: it failed with an event that is lost between two chunks, and, as did the test of those who come back while
  // others publish, in one run of three with a last chunk that is posted ahead of the frames before it (the simulation finds that).
  test('has one hash, whether it is heard from the first event on, over many connections, by a stream, by a session, or in pages', async () => {
    const name = 'kept-hashed';
    const text = 'x'.repeat(1500);
    const always = await new Reader(await made.raw(), name).subscribe();
    const { epoch } = always.at;
    let published = 0;
    let isOver = false;
    const publishing = (async () => {
      while (!isOver) {
        const batch = Array.from({ length: 10 }, () => ({ channel: name, name: 'tick', data: { n: (published += 1), text } }));
        await made.back.triggerBatch(batch);
      }
    })();
    // Each connection ends where it happens to be, and comes to whatever shard.
    const gathered = [];
    for (let round = 0; round < 12; round += 1) {
      const resume = { epoch, serial: gathered.at(-1)?.[0] ?? 0 };
      const one = await new Reader(await made.raw(), name).subscribe({ resume });
      assert.deepEqual(one.at, { ...resume, recovered: true });
      await one.raw.frames.until(() => one.events.length > 15, 'some events');
      one.raw.end();
      gathered.push(...one.events);
    }
    isOver = true;
    await publishing;
    await made.back.trigger(name, 'tick', 'end');
    const expected = await always.until('end');
    assert.deepEqual(expected.map(([serial]) => serial), Array.from({ length: published + 1 }, (_, n) => n + 1));

    const rest = await new Reader(await made.raw(), name).subscribe({ resume: { epoch, serial: gathered.at(-1)[0] } });
    gathered.push(...(await rest.until('end')));
    const told = (messages) => messages.filter(({ serial }) => serial !== undefined).map(({ serial, data }) => [serial, value(data)]);
    const streamed = await stream(made, name, { 'Last-Event-ID': `${epoch}:0` });
    // Of as much as a client takes of one stream.
    const over = await session(made);
    await over.send({ event: 'pusher:subscribe', data: { channel: name, resume: { epoch, serial: expected.length - 100 } } });
    for (const heard of [streamed.messages, over.frames]) await heard.find(({ data }) => data === 'end', 'the end');
    const paged = [];
    for (let from = 1; from <= published + 1;) {
      const page = await made.back.get({ path: `/channels/${name}/events`, params: { from, limit: 100 } }).then((response) => response.json());
      paged.push(...page.events);
      from = page.next;
    }
    const histories = [gathered, told(streamed.messages.all), told(paged)];
    assert.deepEqual(histories.map(hash), histories.map(() => hash(expected)));
    assert.equal(hash(told(over.frames.all)), hash(expected.slice(-100)));
    streamed.end();
    over.end();
  });
});

describe('a long way back', () => {
  const made = group({ shards: 2, config: `${KEPT}retention_messages_max = 100000\nretention_bytes_max = 67108864\n` });

  test('many clients catch up over megabytes while events are published, and miss none', async () => {
    const [name, text] = ['kept-long', 'x'.repeat(2000)];
    let published = 0;
    const publish = async (count) => {
      for (let batch = 0; batch < count / 10; batch += 1) {
        await made.back.triggerBatch(Array.from({ length: 10 }, () => ({ channel: name, name: 'tick', data: { n: (published += 1), text } })));
      }
    };
    await publish(5000);
    const first = await new Reader(await made.raw(), name).subscribe();
    const readers = [];
    for (let n = 0; n < 10; n += 1) {
      const one = new Reader(await made.raw(), name);
      readers.push(await one.subscribe({ resume: { epoch: first.at.epoch, serial: n * 100 } }));
    }
    await publish(500);
    await made.back.trigger(name, 'tick', 'end');
    for (const [n, one] of readers.entries()) {
      const serials = (await one.until('end')).map(([serial]) => serial);
      assert.deepEqual(serials, Array.from({ length: 5501 - n * 100 }, (_, k) => n * 100 + 1 + k));
    }
    assert.equal(await made.server.count('outpour_resumes_recovered_total'), 10);
    assert.equal(await made.server.count('outpour_gaps_total'), 0);
  });
});

// Broken on purpose: with a resume that is called whole although its events were evicted, it failed.
describe('what is not retained any more', () => {
  const made = group({ shards: 2, config: `${KEPT}retention_messages_max = 10\n` });

  test('is told from the first to the last event, and what is left follows', async () => {
    const name = 'kept-late';
    const first = await new Reader(await made.raw(), name).subscribe();
    const { epoch } = first.at;
    for (let n = 1; n <= 30; n += 1) await made.back.trigger(name, 'tick', n);
    const late = await new Reader(await made.raw(), name).subscribe({ resume: { epoch, serial: 5 } });
    assert.deepEqual(late.at, { epoch, serial: 20, recovered: false, missed: { epoch, from: 6, to: 20 } });
    const events = await late.until(30);
    assert.deepEqual(events, Array.from({ length: 10 }, (_, n) => [n + 21, n + 21]));
    const just = await new Reader(await made.raw(), name).subscribe({ resume: { epoch, serial: 20 } });
    assert.deepEqual(just.at, { epoch, serial: 20, recovered: true });
    assert.deepEqual(await just.until(30), events);
  });

  test('after a restart the old epoch is missed from there on, and the new one is got whole', async () => {
    const name = 'kept-epoch';
    const first = await new Reader(await made.raw(), name).subscribe();
    const { epoch } = first.at;
    await made.back.trigger(name, 'tick', 'old');
    await first.until('old');
    await made.server.stop();
    await made.server.start();
    const back = made.library();
    await back.trigger(name, 'tick', 'new');
    const again = await new Reader(await made.raw(), name).subscribe({ resume: { epoch, serial: 1 } });
    assert.notEqual(again.at.epoch, epoch);
    assert.deepEqual(again.at, { epoch: again.at.epoch, serial: 0, recovered: false, missed: { epoch, from: 2, to: null } });
    assert.deepEqual(await again.until('new'), [[1, 'new']]);
  });
});
