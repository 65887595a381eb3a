// permessage-deflate with npm `ws` as the client: what is agreed on, what either side compresses, and who breaks the rules.

import assert from 'node:assert/strict';
import http from 'node:http';
import { describe, test } from 'node:test';
import { within } from './bounded.mjs';
import { APP } from './server.mjs';
import { group } from './group.mjs';

const QUERY = 'protocol=7&client=raw&version=1.0';
const WITHOUT_TAKEOVER = 'permessage-deflate; server_no_context_takeover; client_no_context_takeover';

/** A client that compresses all that it sends. */
const compressing = (parameters = {}) => ({ perMessageDeflate: { threshold: 0, ...parameters } });

/** The status of an upgrade with these offers, and the header that answers them. */
function upgrade(server, ...offers) {
  const answer = new Promise((resolve, reject) => {
    const request = http.request(`${server.url}/app/${APP.key}?${QUERY}`, {
      agent: false,
      headers: {
        Connection: 'Upgrade',
        Upgrade: 'websocket',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
        ...(offers.length > 0 && { 'Sec-WebSocket-Extensions': offers }),
      },
    });
    const look = (response, socket) => {
      socket?.destroy();
      response.resume();
      resolve([response.statusCode, response.headers['sec-websocket-extensions']]);
    };
    request.on('upgrade', look);
    request.on('response', look);
    request.on('error', reject);
    request.end();
  });
  return within(answer, 'an answer to the upgrade');
}

describe('what is agreed on', () => {
  const made = group({ shards: 1 });

  test('nothing that was not offered', async () => {
    assert.deepEqual(await upgrade(made.server), [101, undefined]);
    assert.deepEqual(await upgrade(made.server, 'permessage-bzip2'), [101, undefined]);
  });

  test('no takeover, in either direction, and the window that was asked for', async () => {
    assert.deepEqual(await upgrade(made.server, 'permessage-deflate; client_max_window_bits'), [101, WITHOUT_TAKEOVER]);
    for (const bits of [9, 12, 15]) {
      const offer = `permessage-deflate; server_max_window_bits=${bits}`;
      assert.deepEqual(await upgrade(made.server, offer), [101, `${WITHOUT_TAKEOVER}; server_max_window_bits=${bits}`]);
    }
  });

  test('the first offer that can be taken, on whatever line', async () => {
    const offers = ['permessage-deflate; server_max_window_bits=8, x', 'permessage-deflate; y=1, permessage-deflate; server_max_window_bits="10"'];
    assert.deepEqual(await upgrade(made.server, ...offers), [101, `${WITHOUT_TAKEOVER}; server_max_window_bits=10`]);
  });

  test('offers that are no list fail the handshake', async () => {
    assert.deepEqual(await upgrade(made.server, 'permessage-deflate; ='), [400, undefined]);
  });
});

describe('what clients compress', () => {
  const made = group({ shards: 2 });

  test('is read as if it were not: subscriptions and client events', async () => {
    const [sender, receiver] = [await made.raw(QUERY, compressing()), await made.raw()];
    assert.equal(sender.socket.extensions, 'permessage-deflate');
    for (const raw of [sender, receiver]) {
      const { auth } = made.back.authorizeChannel(raw.socketId, 'private-deflated');
      raw.send({ event: 'pusher:subscribe', data: { channel: 'private-deflated', auth } });
      await raw.frames.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer to subscribing');
    }
    const data = { text: 'abc'.repeat(1000) };
    sender.send({ event: 'client-long', channel: 'private-deflated', data });
    const event = await receiver.frames.find(({ event }) => event === 'client-long', 'the client event');
    assert.deepEqual(event.data, data);
  });

  test('is bounded by what it comes to: 1009, and counted', async () => {
    const raw = await made.raw(QUERY, compressing());
    const before = await made.server.count('outpour_inflated_too_long_total');
    raw.send(' '.repeat(50_000_000));
    assert.equal((await raw.closed()).code, 1009);
    assert.equal(await made.server.count('outpour_inflated_too_long_total'), before + 1);
  });

  test('must be DEFLATE: 1007', async () => {
    const raw = await made.raw(QUERY, compressing());
    raw.socket._socket.write(Buffer.from([0xc1, 0x82, 0, 0, 0, 0, 0xff, 0xff]));
    assert.equal((await raw.closed()).code, 1007);
  });

  test('must be agreed on, and said at a message\'s beginning: 1002', async () => {
    const plain = await made.raw();
    plain.socket._socket.write(Buffer.from([0xc1, 0x81, 0, 0, 0, 0, 0x00]));
    assert.equal((await plain.closed()).code, 1002);
    const compressed = await made.raw(QUERY, compressing());
    compressed.socket._socket.write(Buffer.from([0x01, 0x80, 0, 0, 0, 0, 0xc0, 0x81, 0, 0, 0, 0, 0x00]));
    assert.equal((await compressed.closed()).code, 1002);
  });
});

for (const shards of [1, 3]) {
  describe(`what subscribers get, with ${shards} shards`, () => {
    const made = group({ shards });
    const windows = [9, 10, 11, 12, 13, 14, 15];

    /** Two clients of each window and two plain ones, all of them subscribed. */
    async function subscribers(channel) {
      const options = [...windows.map((bits) => compressing({ serverMaxWindowBits: bits })), compressing(), { perMessageDeflate: false }];
      const raws = await Promise.all([...options, ...options].map((option) => made.raw(QUERY, option)));
      for (const raw of raws) raw.send({ event: 'pusher:subscribe', data: { channel } });
      for (const raw of raws) await raw.frames.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer to subscribing');
      return raws;
    }

    test('every event in order, whatever the window, compressed once for each window', async () => {
      const raws = await subscribers('compressed');
      const before = await made.server.count('outpour_deflates_total');
      const sent = Array.from({ length: 60 }, (_, n) => (n % 3 === 0 ? { n } : { n, text: story(n, 9_000) }));
      for (let first = 0; first < sent.length; first += 10) {
        await made.back.triggerBatch(sent.slice(first, first + 10).map((data) => ({ channel: 'compressed', name: 'step', data })));
      }
      for (const raw of raws) {
        await raw.frames.find(({ event, data }) => event === 'step' && JSON.parse(data).n === 59, 'the last event');
        assert.deepEqual(raw.frames.all.filter(({ event }) => event === 'step').map(({ data }) => JSON.parse(data)), sent);
      }
      assert.equal(await made.server.count('outpour_deflates_total'), before + windows.length * sent.filter(({ text }) => text).length);
    });

    test('one who publishes by a client event is left out, and only that one', async () => {
      const raws = [await made.raw(QUERY, compressing()), await made.raw(QUERY, compressing()), await made.raw()];
      for (const raw of raws) {
        const { auth } = made.back.authorizeChannel(raw.socketId, 'private-talk');
        raw.send({ event: 'pusher:subscribe', data: { channel: 'private-talk', auth } });
        await raw.frames.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer to subscribing');
      }
      for (const [n, raw] of raws.entries()) {
        raw.send({ event: 'client-said', channel: 'private-talk', data: { n, text: story(n, 3_000) } });
        for (const other of raws) {
          if (other !== raw) await other.frames.find(({ event, data }) => event === 'client-said' && data.n === n, `what ${n} said`);
        }
      }
      await made.back.trigger('private-talk', 'last', {});
      for (const [n, raw] of raws.entries()) {
        await raw.frames.find(({ event }) => event === 'last', 'the last event');
        assert.deepEqual(raw.frames.all.filter(({ event }) => event === 'client-said').map(({ data }) => data.n), [0, 1, 2].filter((other) => other !== n));
      }
    });
  });
}

/** Text that refers back to all distances, and differs by `seed`. */
function story(seed, length) {
  let text = '';
  for (let word = seed + 1; text.length < length; word = (word * 48_271) % 2_147_483_647) text += `member ${word % 500} says ${word % 7}; `;
  return text.slice(0, length);
}

describe('a server with compression off', () => {
  const made = group({ shards: 1, compression: false });

  test('agrees on nothing and looks at no offer', async () => {
    assert.deepEqual(await upgrade(made.server, 'permessage-deflate'), [101, undefined]);
    assert.deepEqual(await upgrade(made.server, 'permessage-deflate; ='), [101, undefined]);
  });
});
