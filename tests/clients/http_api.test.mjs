// The HTTP API: the npm `pusher` library, and requests written by hand down to the bytes of the socket.
//
// Statuses follow the vendor's documentation: 400 for what the request says, 401 for who says it, 404 for an application
// or path that does not exist, 413 for what is too large. An unknown `auth_key` is 401, an unknown app id 404.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import net from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Arrivals, within } from './bounded.mjs';
import { library, Raw } from './clients.mjs';
import { APP, Server } from './server.mjs';

let server;
let back;
let listener;

before(async () => {
  server = await Server.start({ shards: 2 });
  back = library(server);
  listener = await Raw.connect(server);
});
beforeEach(() => server.assertAlive());
after(async () => {
  listener?.end();
  back?.hangUp();
  await server?.close();
});

const EVENTS = `/apps/${APP.id}/events`;
const BATCH = `/apps/${APP.id}/batch_events`;
const now = () => Math.floor(Date.now() / 1000);
const md5 = (text) => createHash('md5').update(text).digest('hex');

/** Path and query of a signed request; `change` may alter the parameters before they are signed, `forge` after. */
function signed(method, path, body, { params = {}, change = (all) => all, forge = (all) => all } = {}) {
  let all = { auth_key: APP.key, auth_timestamp: String(now()), auth_version: '1.0', ...params };
  if (body) all.body_md5 = md5(body);
  all = change(all);
  const keys = Object.keys(all).sort((one, other) => (one.toLowerCase() < other.toLowerCase() ? -1 : 1));
  const text = keys.map((key) => `${key.toLowerCase()}=${all[key]}`).join('&');
  all.auth_signature = createHmac('sha256', APP.secret).update(`${method}\n${path}\n${text}`).digest('hex');
  all = forge(all);
  return `${path}?${new URLSearchParams(all)}`;
}

/** A signed POST; `value` is a body as text or bytes, or a value to encode. */
async function post(path, value, options = {}) {
  const body = typeof value === 'string' || Buffer.isBuffer(value) ? value : JSON.stringify(value);
  const answer = await within(
    fetch(server.url + signed('POST', path, body, options), { method: 'POST', body, headers: { 'content-type': 'application/json' } }),
    `an answer to POST ${path}`,
  );
  return { status: answer.status, text: await answer.text(), headers: answer.headers };
}

async function expectStatus(status, answer) {
  const { status: got, text } = await answer;
  assert.equal(got, status, text);
  return text;
}

/** Subscribes the shared listener to a channel of its own for this test, and returns what arrives there. */
async function listen(name) {
  listener.send({ event: 'pusher:subscribe', data: { channel: name } });
  await listener.frames.find(({ event, channel }) => event === 'pusher_internal:subscription_succeeded' && channel === name, `the answer of ${name}`);
  return {
    name,
    events: () => listener.frames.all.filter(({ event, channel }) => channel === name && !event.startsWith('pusher')),
    find: (event) => listener.frames.find((frame) => frame.channel === name && frame.event === event, `${event} on ${name}`),
  };
}

const event = (more = {}) => ({ name: 'hello', data: '{}', channels: ['room'], ...more });

describe('what is accepted', () => {
  test('POST /events answers 200, {} and JSON', async () => {
    const { status, text, headers } = await post(EVENTS, event());
    assert.deepEqual([status, text], [200, '{}']);
    assert.match(headers.get('content-type') ?? '', /^application\/json/);
  });

  test('POST /batch_events answers 200 and {}', async () => {
    const { status, text } = await post(BATCH, { batch: [{ name: 'a', data: '', channel: 'room' }, { name: 'b', data: '1', channel: 'other' }] });
    assert.deepEqual([status, text], [200, '{}']);
  });

  test('the npm library reads the same', async () => {
    const single = await back.trigger('room', 'hello', { n: 1 });
    assert.deepEqual([single.status, await single.text()], [200, '{}']);
    const batch = await back.triggerBatch([{ channel: 'room', name: 'hello', data: { n: 1 } }]);
    assert.deepEqual([batch.status, await batch.text()], [200, '{}']);
  });

  test('`channel` may stand for `channels`', async () => {
    const room = await listen('api-channel');
    await expectStatus(200, post(EVENTS, { name: 'hello', data: '{}', channel: room.name }));
    await room.find('hello');
  });

  test('an event goes once to a channel that is named twice', async () => {
    const room = await listen('api-twice');
    await expectStatus(200, post(EVENTS, event({ channels: [room.name, room.name] })));
    await expectStatus(200, post(EVENTS, event({ name: 'after', channels: [room.name] })));
    await room.find('after');
    assert.ok(room.events().length <= 3, JSON.stringify(room.events()));
    assert.equal(room.events()[0].event, 'hello');
  });

  test('unknown members of the body are ignored', async () => {
    await expectStatus(200, post(EVENTS, event({ tags: { a: 1 }, 'ü': [[[]]] })));
  });

  test('a hundred channels, ten events, 10 KB of data and names of 200 characters', async () => {
    await expectStatus(200, post(EVENTS, event({ channels: Array.from({ length: 100 }, (_, n) => `hundred-${n}`) })));
    await expectStatus(200, post(BATCH, { batch: Array.from({ length: 10 }, () => ({ name: 'a', data: 'x'.repeat(10_240), channel: 'room' })) }));
    await expectStatus(200, post(EVENTS, event({ data: 'x'.repeat(10_240) })));
    await expectStatus(200, post(EVENTS, event({ name: 'n'.repeat(200), channels: ['c'.repeat(200)] })));
  });

  test('data may be escaped in every way that JSON has', async () => {
    const room = await listen('api-escapes');
    await expectStatus(200, post(EVENTS, `{"name":"h\\u0065llo","channel":"${room.name}","data":"\\ud83d\\ude80\\/\\u0000\\"\\\\"}`));
    assert.equal((await room.find('hello')).data, '🚀/\u0000"\\');
  });

  test('what the body lacks may come in the query string', async () => {
    const room = await listen('api-query');
    await expectStatus(200, post(EVENTS, { name: 'one', data: '1' }, { params: { channel: room.name } }));
    await expectStatus(200, post(EVENTS, { name: 'two', data: '2' }, { params: { 'channels[]': room.name, socket_id: listener.socketId } }));
    await expectStatus(200, post(EVENTS, { name: 'three', data: '3' }, { params: { 'channels[]': room.name } }));
    await room.find('three');
    assert.deepEqual(room.events().map(({ event, data }) => [event, data]), [['one', '1'], ['three', '3']]);
  });

  test('with the name in the query string the body is the data', async () => {
    const room = await listen('api-query-body');
    await expectStatus(200, post(EVENTS, '{"any": "thing"}', { params: { name: 'whole', channel: room.name } }));
    assert.equal((await room.find('whole')).data, '{"any": "thing"}');
  });

  test('parameters are signed with lower-case keys, and extra ones are part of it', async () => {
    await expectStatus(200, post(EVENTS, event(), { params: { 'X-Extra': 'a b&c=ü' } }));
  });

  test('a timestamp nine minutes off is still good', async () => {
    for (const off of [-540, 540]) await expectStatus(200, post(EVENTS, event(), { change: (all) => ({ ...all, auth_timestamp: String(now() + off) }) }));
  });

  test('socket_id leaves a subscriber out of a batch event and of no other', async () => {
    const room = await listen('api-exclude');
    const batch = [1, 2, 3].map((n) => ({ name: `n${n}`, data: '{}', channel: room.name, ...(n === 2 ? { socket_id: listener.socketId } : {}) }));
    await expectStatus(200, post(BATCH, { batch }));
    await room.find('n3');
    assert.deepEqual(room.events().map((frame) => frame.event), ['n1', 'n3']);
  });
});

describe('what is refused', () => {
  const auth = [
    ['a signature that does not match', { forge: (all) => ({ ...all, auth_signature: 'f'.repeat(64) }) }],
    ['a signature that is cut', { forge: (all) => ({ ...all, auth_signature: all.auth_signature.slice(0, 63) }) }],
    ['no signature', { forge: ({ auth_signature, ...rest }) => rest }],
    ['a parameter added after signing', { forge: (all) => ({ ...all, extra: '1' }) }],
    ['an unknown key', { change: (all) => ({ ...all, auth_key: 'nobody' }) }],
    ['no key', { change: ({ auth_key, ...rest }) => rest }],
    ['a timestamp that is too old', { change: (all) => ({ ...all, auth_timestamp: String(now() - 700) }) }],
    ['a timestamp from the future', { change: (all) => ({ ...all, auth_timestamp: String(now() + 700) }) }],
    ['a timestamp that is no number', { change: (all) => ({ ...all, auth_timestamp: 'now' }) }],
    ['no timestamp', { change: ({ auth_timestamp, ...rest }) => rest }],
    ['another version', { change: (all) => ({ ...all, auth_version: '2.0' }) }],
    ['an md5 of another body', { change: (all) => ({ ...all, body_md5: md5('other') }) }],
    ['no md5 of a body', { change: ({ body_md5, ...rest }) => rest }],
  ];
  for (const [what, options] of auth) {
    test(`401: ${what}`, async () => {
      const room = await listen(`api-refused-${what.replace(/\W/g, '-')}`);
      await expectStatus(401, post(EVENTS, event({ channels: [room.name] }), options));
      await expectStatus(200, post(EVENTS, event({ name: 'after', channels: [room.name] })));
      await room.find('after');
      assert.equal(room.events().length, 1, 'the refused event was delivered');
    });
  }

  test('401: the npm library with a wrong secret', async () => {
    const stranger = library(server, { secret: 'wrong' });
    await assert.rejects(stranger.trigger('room', 'hello', {}), (error) => assert.equal(error.status, 401) ?? true);
    stranger.hangUp();
  });

  const bodies = [
    ['not JSON', 'nonsense'],
    ['JSON that is cut', '{"name":"a","data":"'],
    ['something after the JSON', `${JSON.stringify(event())}x`],
    ['an array', '[]'],
    ['bytes that are not UTF-8', Buffer.concat([Buffer.from('{"name":"a","channel":"room","data":"'), Buffer.from([0xff]), Buffer.from('"}')])],
    ['no name', event({ name: undefined })],
    ['an empty name', event({ name: '' })],
    ['a name that is a number', event({ name: 7 })],
    ['a name of 201 characters', event({ name: 'n'.repeat(201) })],
    ['a reserved name', event({ name: 'pusher:hello' })],
    ['an internal name', event({ name: 'pusher_internal:subscription_succeeded' })],
    ['no data', event({ data: undefined })],
    ['no channel', event({ channels: undefined })],
    ['an empty list of channels', event({ channels: [] })],
    ['101 channels', event({ channels: Array.from({ length: 101 }, (_, n) => `c${n}`) })],
    ['a channel that is a number', event({ channels: [7] })],
    ['an empty channel name', event({ channels: [''] })],
    ['a channel name with a space', event({ channels: ['a b'] })],
    ['a channel name with a slash', event({ channels: ['a/b'] })],
    ['a channel name beyond ASCII', event({ channels: ['größe'] })],
    ['a channel name of 201 characters', event({ channels: ['c'.repeat(201)] })],
    ['one bad channel name among good ones', event({ channels: ['good', 'b@d!'] })],
    ['a socket_id that cannot be', event({ socket_id: 'me' })],
  ];
  for (const [what, body] of bodies) {
    test(`400: ${what}`, async () => {
      await expectStatus(400, post(EVENTS, body));
    });
  }

  test('400: eleven events in a batch, in the words that libraries know', async () => {
    const text = await expectStatus(400, post(BATCH, { batch: Array.from({ length: 11 }, () => ({ name: 'a', data: '', channel: 'room' })) }));
    assert.match(text, /Batch too large/);
  });

  for (const [what, body] of [['no batch', {}], ['a batch that is no list', { batch: {} }], ['an event without a channel', { batch: [{ name: 'a', data: '' }] }]]) {
    test(`400: ${what}`, async () => {
      await expectStatus(400, post(BATCH, body));
    });
  }

  test('400: one bad event refuses its whole batch', async () => {
    const room = await listen('api-batch-whole');
    await expectStatus(400, post(BATCH, { batch: [{ name: 'a', data: '', channel: room.name }, { name: 'pusher:b', data: '', channel: room.name }] }));
    await expectStatus(200, post(EVENTS, event({ name: 'after', channels: [room.name] })));
    await room.find('after');
    assert.equal(room.events().length, 1, 'a part of the refused batch was delivered');
  });

  test('400: one bad channel refuses the event for all of them', async () => {
    const room = await listen('api-channels-whole');
    await expectStatus(400, post(EVENTS, event({ channels: [room.name, 'b@d!'] })));
    await expectStatus(200, post(EVENTS, event({ name: 'after', channels: [room.name] })));
    await room.find('after');
    assert.equal(room.events().length, 1, 'the refused event was delivered');
  });

  test('413: data of more than 10 KB, counted in bytes', async () => {
    await expectStatus(413, post(EVENTS, event({ data: 'x'.repeat(10_241) })));
    await expectStatus(413, post(EVENTS, event({ data: 'é'.repeat(5_121) })));
    await expectStatus(200, post(EVENTS, event({ data: 'é'.repeat(5_120) })));
    const text = await expectStatus(413, post(BATCH, { batch: [{ name: 'a', data: 'x'.repeat(10_241), channel: 'room' }] }));
    assert.match(text, /The data content of this event exceeds the allowed maximum \(10240 bytes\)/);
  });

  test('413: a body beyond any event', async () => {
    // The answer may come, and the connection end, before the body was read: a reset while sending is an answer as well.
    const body = JSON.stringify(event({ data: 'x'.repeat(20_000_000) }));
    const socket = await Socket.open();
    socket.write(request('POST', signed('POST', EVENTS, body), body));
    const [answer] = await socket.answers.first(1);
    assert.equal(answer.status, 413);
    socket.end();
  });

  test('404: an unknown application', async () => {
    await expectStatus(404, post('/apps/9999/events', event()));
    await expectStatus(404, post('/apps/not-a-number/events', event()));
  });

  for (const path of ['/', '/apps', `/apps/${APP.id}`, `/apps/${APP.id}/nothing`, '/nothing', `/apps/${APP.id}/events/more`]) {
    test(`no publish at ${path}`, async () => {
      // A page that only answers GET may be there.
      const { status } = await post(path, event());
      assert.ok([404, 405].includes(status), String(status));
    });
  }

  for (const method of ['GET', 'PUT', 'DELETE']) {
    test(`${method} of /events is 404 or 405`, async () => {
      const { status } = await within(fetch(server.url + signed(method, EVENTS, ''), { method }), 'an answer');
      assert.ok([404, 405].includes(status), String(status));
    });
  }
});

/** A connection whose bytes we write, and its answers as {status, headers, body}. */
class Socket {
  static async open() {
    const self = new Socket();
    self.answers = new Arrivals('HTTP answers');
    self.rest = Buffer.alloc(0);
    self.socket = net.connect({ port: server.port, host: '127.0.0.1', noDelay: true });
    self.socket.on('data', (bytes) => self.read(bytes));
    self.socket.on('error', (error) => (self.error = error));
    self.over = new Promise((resolve) => self.socket.on('close', resolve));
    self.socket.on('close', () => self.answers.end(`the connection ended ${self.error ?? ''}`));
    await within(new Promise((resolve) => self.socket.once('connect', resolve)), 'a connection');
    return self;
  }

  read(bytes) {
    this.rest = Buffer.concat([this.rest, bytes]);
    for (;;) {
      const head = this.rest.indexOf('\r\n\r\n');
      if (head < 0) return;
      const [first, ...lines] = this.rest.subarray(0, head).toString('latin1').split('\r\n');
      const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
      const length = Number(headers['content-length'] ?? 0);
      if (this.rest.length < head + 4 + length) return;
      const body = this.rest.subarray(head + 4, head + 4 + length).toString();
      this.rest = this.rest.subarray(head + 4 + length);
      this.answers.add({ status: Number(first.split(' ')[1]), headers, body });
    }
  }

  write(bytes) {
    this.socket.write(bytes);
  }

  closed() {
    return within(this.over, 'the server to end the connection');
  }

  end() {
    this.socket.destroy();
  }
}

function request(method, target, body, headers = `Content-Length: ${Buffer.byteLength(body)}\r\n`) {
  return `${method} ${target} HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\nContent-Type: application/json\r\n${headers}\r\n${body}`;
}

function publish(name, channel, headers) {
  const body = JSON.stringify({ name, data: name, channels: [channel] });
  return request('POST', signed('POST', EVENTS, body), body, headers);
}

function chunked(name, channel, size) {
  const body = JSON.stringify({ name, data: name, channels: [channel] });
  let encoded = '';
  for (let at = 0; at < body.length; at += size) {
    const part = body.slice(at, at + size);
    encoded += `${part.length.toString(16)}\r\n${part}\r\n`;
  }
  return request('POST', signed('POST', EVENTS, body), `${encoded}0\r\n\r\n`, 'Transfer-Encoding: chunked\r\n');
}

describe('HTTP/1.1 on one connection', () => {
  test('a connection serves request after request', async () => {
    const room = await listen('http-keep-alive');
    const socket = await Socket.open();
    for (let n = 1; n <= 20; n += 1) {
      socket.write(publish(`n${n}`, room.name));
      const answer = (await socket.answers.first(n)).at(-1);
      assert.deepEqual([answer.status, answer.body], [200, '{}']);
    }
    await room.find('n20');
    assert.deepEqual(room.events().map((frame) => frame.event), Array.from({ length: 20 }, (_, n) => `n${n + 1}`));
    socket.end();
  });

  test('requests that came in one write are answered and published in order', async () => {
    const room = await listen('http-pipeline');
    const socket = await Socket.open();
    const names = Array.from({ length: 50 }, (_, n) => `n${n}`);
    socket.write(names.map((name) => publish(name, room.name)).join('') + request('POST', '/nothing', '') + publish('last', room.name));
    const answers = await socket.answers.first(52);
    assert.deepEqual(answers.map(({ status }) => status), [...names.map(() => 200), 404, 200]);
    await room.find('last');
    assert.deepEqual(room.events().map((frame) => frame.event), [...names, 'last']);
    socket.end();
  });

  test('requests across channels of every shard keep the order of their answers', async () => {
    const socket = await Socket.open();
    const kinds = Array.from({ length: 60 }, (_, n) => (n % 4 === 3 ? 404 : 200));
    socket.write(kinds.map((status, n) => (status === 404 ? request('POST', '/nothing', '') : publish('x', `spread-${n}`))).join(''));
    assert.deepEqual((await socket.answers.first(60)).map(({ status }) => status), kinds);
    socket.end();
  });

  test('a request may arrive byte by byte', async () => {
    const room = await listen('http-bytes');
    const socket = await Socket.open();
    for (const byte of Buffer.from(publish('drip', room.name) + chunked('drop', room.name, 7))) {
      await new Promise((resolve) => socket.socket.write(Buffer.from([byte]), resolve));
    }
    assert.deepEqual((await socket.answers.first(2)).map(({ status }) => status), [200, 200]);
    await room.find('drop');
    assert.deepEqual(room.events().map((frame) => frame.event), ['drip', 'drop']);
    socket.end();
  });

  for (const size of [1, 16, 1_000]) {
    test(`a chunked body in chunks of ${size} is the same body`, async () => {
      const room = await listen(`http-chunked-${size}`);
      const socket = await Socket.open();
      socket.write(chunked('first', room.name, size) + chunked('second', room.name, size));
      assert.deepEqual((await socket.answers.first(2)).map(({ status, body }) => [status, body]), [[200, '{}'], [200, '{}']]);
      await room.find('second');
      assert.deepEqual(room.events().map(({ event, data }) => [event, data]), [['first', 'first'], ['second', 'second']]);
      socket.end();
    });
  }

  test('Connection: close is honoured after the answer', async () => {
    const socket = await Socket.open();
    const body = JSON.stringify(event());
    socket.write(request('POST', signed('POST', EVENTS, body), body, `Content-Length: ${body.length}\r\nConnection: close\r\n`));
    const [answer] = await socket.answers.first(1);
    assert.equal(answer.status, 200);
    await socket.closed();
  });

  test('Expect: 100-continue does not stall a client that waits for it', async () => {
    const socket = await Socket.open();
    const body = JSON.stringify(event());
    socket.write(request('POST', signed('POST', EVENTS, body), '', `Content-Length: ${body.length}\r\nExpect: 100-continue\r\n`));
    const [first] = await socket.answers.first(1);
    assert.equal(first.status, 100, `answered ${first.status} before the body`);
    socket.write(body);
    assert.equal((await socket.answers.first(2))[1].status, 200);
    socket.end();
  });

  const malformed = [
    ['two lengths that differ', (body) => `Content-Length: ${body.length}\r\nContent-Length: ${body.length + 1}\r\n`],
    ['two lengths in one line', (body) => `Content-Length: ${body.length}, ${body.length + 1}\r\n`],
    ['a length and chunks', (body) => `Content-Length: ${body.length}\r\nTransfer-Encoding: chunked\r\n`],
    ['chunks and a length', (body) => `Transfer-Encoding: chunked\r\nContent-Length: ${body.length}\r\n`],
    ['a negative length', () => 'Content-Length: -1\r\n'],
    ['a length with a sign', (body) => `Content-Length: +${body.length}\r\n`],
    ['a length beyond 64 bits', () => 'Content-Length: 99999999999999999999999\r\n'],
    ['a length that is no number', () => 'Content-Length: ten\r\n'],
    ['a space before the colon', (body) => `Content-Length : ${body.length}\r\n`],
    ['chunks of no size', () => 'Transfer-Encoding: chunked\r\n'],
  ];
  for (const [what, headers] of malformed) {
    test(`refused, and the connection ended: ${what}`, async () => {
      const room = await listen(`http-malformed-${what.replace(/\W/g, '-')}`);
      const socket = await Socket.open();
      const body = JSON.stringify(event({ channels: [room.name] }));
      // What follows must not be taken for a request of its own.
      socket.write(request('POST', signed('POST', EVENTS, body), body, headers(body)) + publish('smuggled', room.name));
      const [answer] = await socket.answers.first(1);
      assert.ok([400, 413, 501].includes(answer.status), `status ${answer.status}`);
      await socket.closed();
      assert.equal(socket.answers.length, 1, JSON.stringify(socket.answers.all));
      await expectStatus(200, post(EVENTS, event({ name: 'after', channels: [room.name] })));
      await room.find('after');
      assert.deepEqual(room.events().map((frame) => frame.event), ['after']);
    });
  }

  for (const [what, bytes] of [['no HTTP at all', 'EHLO mail\r\n\r\n'], ['a broken version', 'GET / HTTP/9.9\r\n\r\n'], ['binary', '\u0000\u0001\u0002\r\n\r\n']]) {
    test(`refused: ${what}`, async () => {
      const socket = await Socket.open();
      socket.write(bytes);
      await socket.closed();
      for (const { status } of socket.answers.all) assert.ok([400, 505].includes(status), `status ${status}`);
    });
  }

  test('a head without end is refused', async () => {
    const socket = await Socket.open();
    socket.write(`GET / HTTP/1.1\r\nHost: a\r\n${`X-Long: ${'x'.repeat(1_000)}\r\n`.repeat(100)}`);
    const [answer] = await socket.answers.first(1);
    assert.ok([400, 413, 431].includes(answer.status), `status ${answer.status}`);
    await socket.closed();
  });

  test('a client that ends its half gets the answers to what it sent', async () => {
    const socket = await Socket.open();
    socket.write(publish('a', 'http-half') + publish('b', 'http-half'));
    socket.socket.end();
    assert.deepEqual((await socket.answers.first(2)).map(({ status }) => status), [200, 200]);
    await socket.closed();
  });
});
