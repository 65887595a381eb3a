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

/** The sum over all shards of a metric. */
async function count(server, metric) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${metric}\\{.*\\} (\\d+)$`, 'gm'))].reduce((sum, [, value]) => sum + Number(value), 0);
}

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
    const before = await count(made.server, 'outpour_inflated_too_long_total');
    raw.send(' '.repeat(50_000_000));
    assert.equal((await raw.closed()).code, 1009);
    assert.equal(await count(made.server, 'outpour_inflated_too_long_total'), before + 1);
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

describe('a server with compression off', () => {
  const made = group({ shards: 1, compression: false });

  test('agrees on nothing and looks at no offer', async () => {
    assert.deepEqual(await upgrade(made.server, 'permessage-deflate'), [101, undefined]);
    assert.deepEqual(await upgrade(made.server, 'permessage-deflate; ='), [101, undefined]);
  });
});
