// Channels over plain HTTP: pusher-js whose WebSocket is disabled, and raw requests for what it does not show.

import assert from 'node:assert/strict';
import http from 'node:http';
import { describe, test } from 'node:test';
import { Arrivals, within } from './bounded.mjs';
import { complaint, events, subscribed } from './clients.mjs';
import { group, keep, mark } from './group.mjs';
import { APP } from './server.mjs';

const TRANSPORTS = ['xhr_streaming', 'xhr_polling'];

/** Settings of pusher-js that leave it one transport over HTTP. */
const over = (made, transport, options = {}) => ({
  httpHost: '127.0.0.1',
  httpPort: made.server.port,
  enabledTransports: [transport],
  ...options,
});

const numbers = (channel) => events(channel).map(([, data]) => data.n);
const upTo = (count) => Array.from({ length: count }, (_, n) => n);

/** Publishes `count` numbered events in batches of ten, each with `pad` characters of text. */
async function publish(back, channel, count, pad = 0) {
  for (let n = 0; n < count; n += 10) {
    const batch = upTo(Math.min(10, count - n)).map((k) => ({ channel, name: 'hello', data: { n: n + k, pad: 'é'.repeat(pad) } }));
    await back.triggerBatch(batch);
  }
}

for (const transport of TRANSPORTS) {
  describe(`pusher-js over ${transport}`, () => {
    const made = group({ shards: 2, config: 'fallback_heartbeat_ms = 400\n' });

    for (const name of ['fallback-room', 'private-fallback-room']) {
      test(`${name} receives what is published, once and in order, over many reopened streams and polls`, async () => {
        const client = await made.join(over(made, transport));
        const channel = await subscribed(client, name);
        // Some 2.5 MB: pusher-js asks for another stream after every 256 KiB.
        await publish(made.back, name, 3_000, 100);
        await mark(made.back, channel);
        const got = numbers(channel).filter((n) => n !== undefined);
        assert.deepEqual(got, upTo(3_000));
        assert.equal(client.connection.state, 'connected');
        assert.deepEqual(client.states.all, ['connected']);
      });
    }

    test('client events go both ways, also to a WebSocket, and not back to their sender', async () => {
      const clients = [await made.join(over(made, transport)), await made.join(over(made, transport)), await made.join()];
      const channels = [];
      for (const client of clients) channels.push(await subscribed(client, 'private-fallback-chat'));
      for (const [from, channel] of channels.entries()) {
        channel.trigger('client-typing', { from });
        for (const other of channels) {
          if (other === channel) continue;
          await other.arrivals.find(([name, data]) => name === 'client-typing' && data.from === from, `what ${from} typed`);
        }
      }
      for (const channel of channels) await mark(made.back, channel);
      const typed = (channel) => events(channel).filter(([name]) => name === 'client-typing').map(([, data]) => data.from);
      assert.deepEqual(channels.map(typed), [[1, 2], [0, 2], [0, 1]]);
    });

    test('messages that a client sends one after the other are all read', async () => {
      const [client, other] = [await made.join(over(made, transport)), await made.join()];
      const names = upTo(30).map((n) => `fallback-many-${n}`);
      const channels = await Promise.all(names.map((name) => subscribed(client, name)));
      client.unsubscribe(names[0]);
      const marker = await subscribed(other, names[1]);
      for (const name of names) await made.back.trigger(name, 'hello', { n: 1 });
      await mark(made.back, marker);
      for (const channel of channels.slice(1)) await channel.arrivals.find(([event]) => event === 'hello', 'its event');
    });

    test('the client named by socket_id is left out', async () => {
      const [self, other] = [await made.join(over(made, transport)), await made.join(over(made, transport))];
      const channels = [await subscribed(self, 'fallback-exclude'), await subscribed(other, 'fallback-exclude')];
      await made.back.trigger('fallback-exclude', 'hello', { n: 1 }, { socket_id: self.connection.socket_id });
      const seen = [];
      for (const channel of channels) seen.push((await mark(made.back, channel)).length);
      assert.deepEqual(seen, [0, 1]);
    });

    test('members of a presence channel see each other across transports', async () => {
      const authorized = (id) => ({
        channelAuthorization: {
          customHandler: ({ socketId, channelName }, callback) => callback(null, made.back.authorizeChannel(socketId, channelName, { user_id: id, user_info: { id } })),
        },
      });
      const [one, two] = [await made.join({ ...over(made, transport), ...authorized('one') }), await made.join(authorized('two'))];
      const first = await subscribed(one, 'presence-fallback');
      const second = await subscribed(two, 'presence-fallback');
      await first.arrivals.find(([name, member]) => name === 'pusher:member_added' && member.id === 'two', 'the second member');
      assert.deepEqual(Object.keys(second.members.members).sort(), ['one', 'two']);
      two.disconnect();
      await first.arrivals.find(([name, member]) => name === 'pusher:member_removed' && member.id === 'two', 'its leaving');
    });

    test('an unknown key is refused with 4001', async () => {
      const { default: PusherJs } = await import('pusher-js');
      const client = keep(made.clients, new PusherJs('nobody', { wsHost: '127.0.0.1', wsPort: made.server.port, forceTLS: false, cluster: 'none', ...over(made, transport) }));
      const errors = new Arrivals('errors');
      client.connection.bind('error', (error) => errors.add(complaint(error)));
      const { code } = await errors.find(({ code }) => code, 'a refusal');
      assert.equal(code, 4001);
    });

    test('signs of life keep an idle client connected', async () => {
      const client = await made.join(over(made, transport, { activityTimeout: 900, pongTimeout: 900 }));
      const id = client.connection.socket_id;
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      assert.deepEqual(client.states.all, ['connected']);
      assert.equal(client.connection.socket_id, id);
    });
  });
}

describe('many sessions on several shards', () => {
  const made = group({ shards: 3 });

  test('each gets everything in order, whatever shard its requests arrive on', async () => {
    const clients = await Promise.all(upTo(24).map((n) => made.join(over(made, TRANSPORTS[n % 2]))));
    const channels = await Promise.all(clients.map((client) => subscribed(client, 'private-fallback-crowd')));
    await publish(made.back, 'private-fallback-crowd', 300, 20);
    for (const channel of channels) {
      await mark(made.back, channel);
      assert.deepEqual(numbers(channel).filter((n) => n !== undefined), upTo(300));
    }
    const metrics = await request(made, 'GET', '/metrics').whole();
    const transfers = [...metrics.matchAll(/^outpour_transfers_total\{.*\} (\d+)$/gm)].map(([, count]) => Number(count));
    assert.ok(transfers.length === 3 && transfers.every((count) => count > 0), `connections moved to shards: ${transfers}`);
  });
});

describe('a session by hand', () => {
  const made = group({ shards: 2, config: 'fallback_gap_ms_max = 1500\nfallback_heartbeat_ms = 500\nfallback_sessions_per_shard_max = 40\n' });

  test('is opened once, keeps what comes while nobody receives, and is gone after the gap', async () => {
    const session = new ByHand(made, '0123abcd');
    const first = await session.poll();
    assert.equal(first[0], 'o{}');
    assert.match(first[1], /^a\["\{\\"event\\":\\"pusher:connection_established/);
    await session.send({ event: 'pusher:subscribe', data: { channel: 'gap' } });
    const [succeeded] = await session.poll();
    assert.match(succeeded, /subscription_succeeded/);
    for (const n of upTo(5)) await made.back.trigger('gap', 'hello', { n });
    await new Promise((resolve) => setTimeout(resolve, 800));
    const lines = [];
    while (lines.length < 5) lines.push(...(await session.poll()));
    assert.deepEqual(lines.flatMap(messages).map(({ data }) => JSON.parse(data).n), upTo(5));
    await new Promise((resolve) => setTimeout(resolve, 2_200));
    const again = await session.poll();
    assert.equal(again[0], 'o{}', 'a second opening tells the client that its session is lost');
    assert.doesNotMatch(again.join(), /hello/);
  });

  test('a stream begins with a prelude, and a newer stream takes over without a second opening', async () => {
    const session = new ByHand(made, 'stream01');
    const first = session.stream();
    assert.equal(await first.line(), 'h'.repeat(2048));
    assert.equal(await first.line(), 'o{}');
    assert.match(await first.line(), /connection_established/);
    await session.send({ event: 'pusher:subscribe', data: { channel: 'takeover' } });
    assert.match(await first.line(), /subscription_succeeded/);
    const second = session.stream();
    assert.equal(await second.line(), 'h'.repeat(2048));
    await within(first.ended, 'the older stream to end');
    await made.back.trigger('takeover', 'hello', { n: 1 });
    assert.equal(messages(await second.line(isMessage))[0].event, 'hello');
    second.end();
  });

  test('an idle poll ends with a sign of life, and a stream gets one', async () => {
    const polled = new ByHand(made, 'beat0001');
    await polled.poll();
    assert.deepEqual(await polled.poll(), ['h']);
    const streamed = new ByHand(made, 'beat0002').stream();
    assert.equal(await streamed.line((line) => line === 'h'), 'h');
    streamed.end();
  });

  test('what is no message is refused, and a ping is answered', async () => {
    const session = new ByHand(made, 'upload01');
    await session.poll();
    assert.equal(await session.upload('[]'), 204);
    assert.equal(await session.upload(''), 400);
    assert.equal(await session.upload('{}'), 400);
    assert.equal(await session.upload('["\\ud800"]'), 400);
    assert.equal(await new ByHand(made, 'nobody01').upload('[]'), 404);
    await session.send({ event: 'pusher:ping', data: {} }, { event: 'pusher:nonsense' });
    const lines = [];
    while (lines.filter(isMessage).length < 2) lines.push(...(await session.poll()));
    assert.deepEqual(lines.flatMap(messages).map(({ event }) => event), ['pusher:pong', 'pusher:error']);
  });

  test('a page of any origin may ask', async () => {
    const path = `/pusher/app/${APP.key}/1/cors0001/xhr`;
    const preflight = request(made, 'OPTIONS', path, { Origin: 'https://example.org', 'Access-Control-Request-Method': 'POST' });
    await preflight.whole();
    const { headers, statusCode } = await preflight.response;
    assert.equal(statusCode, 204);
    assert.equal(headers['access-control-allow-origin'], 'https://example.org');
    assert.match(headers['access-control-allow-methods'], /POST/);
    assert.match(headers['access-control-allow-headers'], /Content-Type/i);
    const poll = request(made, 'POST', path, { Origin: 'https://example.org' });
    await poll.whole();
    assert.equal((await poll.response).headers['access-control-allow-origin'], 'https://example.org');
    for (const [method, below, status] of [['GET', '', 200], ['GET', '/info', 200], ['GET', '/1/x/websocket', 404], ['GET', '/1/x/xhr', 405]]) {
      const asked = request(made, method, `/pusher${below}`);
      await asked.whole();
      assert.equal((await asked.response).statusCode, status, below);
    }
  });

  test('a client that is closed is told the code, when it receives', async () => {
    const session = new ByHand(made, 'signin01');
    await session.poll();
    await session.send({ event: 'pusher:signin', data: { auth: 'nonsense', user_data: '{"id":"1"}' } });
    const lines = [];
    while (!lines.some((line) => line.startsWith('c'))) lines.push(...(await session.poll()));
    assert.match(lines.at(-1), /^c\[4009,/);
    assert.equal((await session.poll())[0], 'o{}', 'the session ended with its close');
  });

  test('beyond the bound a session is told 4100', async () => {
    const sessions = upTo(200).map((n) => new ByHand(made, `full${String(n).padStart(4, '0')}`));
    const lines = await Promise.all(sessions.map((session) => session.poll()));
    const refused = lines.filter((session) => session.some((line) => line.startsWith('c[4100,')));
    assert.ok(refused.length > 0 && refused.length < 200, `${refused.length} of 200 were refused`);
  });
});

describe('a drain', () => {
  const made = group({ shards: 2 });

  test('tells sessions to come back, and ends', async () => {
    const clients = await Promise.all(TRANSPORTS.map((transport) => made.join(over(made, transport))));
    const outcome = await made.server.stop('SIGTERM');
    assert.equal(outcome.code, 0);
    assert.doesNotMatch(made.server.output, /are cut/);
    await made.server.start();
    for (const client of clients) {
      await client.states.find((state) => state === 'connected', 'connected again', undefined, 2);
    }
  });
});

describe('Server-Sent Events', () => {
  const made = group({ shards: 2, config: 'fallback_heartbeat_ms = 300\n' });
  const path = (channel, params = {}) => {
    const url = `/apps/${APP.id}/channels/${channel}/events`;
    return `${url}?${made.back.createSignedQueryString({ method: 'GET', path: url, params })}`;
  };

  for (const channel of ['news', 'private-news', 'cache-news']) {
    test(`a reader of ${channel} gets its events in order, and signs of life`, async () => {
      const reader = request(made, 'GET', path(channel));
      assert.equal((await reader.response).headers['content-type'], 'text/event-stream');
      assert.match(await reader.line((line) => line.startsWith('data: ')), /subscription_succeeded/);
      await publish(made.back, channel, 100);
      const got = [];
      while (got.length < 100) {
        const message = JSON.parse((await reader.line((line) => line.startsWith('data: '))).slice(6));
        if (message.event !== 'hello') continue;
        assert.equal(message.channel, channel);
        got.push(JSON.parse(message.data).n);
      }
      assert.deepEqual(got, upTo(100));
      await reader.line((line) => line === ':');
      reader.end();
    });
  }

  test('an unsigned reader, and one of a channel with members, is refused', async () => {
    for (const [asked, status] of [
      [path('news').replace(/auth_signature=\w+/, 'auth_signature=00'), 401],
      [`/apps/${APP.id}/channels/news/events`, 401],
      [path('presence-news'), 400],
      [path('%20'), 400],
    ]) {
      const reader = request(made, 'GET', asked);
      await reader.whole();
      assert.equal((await reader.response).statusCode, status, asked);
    }
  });
});

describe('a server that serves no fallbacks', () => {
  const made = group({ shards: 1, config: 'http_path = ""\n' });

  test('answers 404', async () => {
    const poll = request(made, 'POST', `/pusher/app/${APP.key}/1/00000000/xhr`);
    await poll.whole();
    assert.equal((await poll.response).statusCode, 404);
  });
});

const isMessage = (line) => line.startsWith('a');
const messages = (line) => (isMessage(line) ? JSON.parse(line.slice(1)).map((text) => JSON.parse(text)) : []);

/** A session whose requests are made one by one, each on a connection of its own. */
class ByHand {
  constructor(made, name) {
    this.made = made;
    this.path = `/pusher/app/${APP.key}/7/${name}`;
  }

  /** The lines of one poll. */
  async poll() {
    const body = await request(this.made, 'POST', `${this.path}/xhr?protocol=7&client=hand&version=1`).whole();
    return body.split('\n').slice(0, -1);
  }

  stream() {
    return request(this.made, 'POST', `${this.path}/xhr_streaming?protocol=7&client=hand&version=1`);
  }

  async upload(body) {
    const asked = request(this.made, 'POST', `${this.path}/xhr_send`, { 'Content-Type': 'application/json' }, body);
    await asked.whole();
    return (await asked.response).statusCode;
  }

  async send(...sent) {
    assert.equal(await this.upload(JSON.stringify(sent.map((message) => JSON.stringify(message)))), 204);
  }
}

/** A request on a connection of its own, whose answer is read line by line, or as a `whole`. */
function request(made, method, path, headers = {}, body = '') {
  const lines = new Arrivals(`lines of ${path}`);
  let rest = '';
  let taken = 0;
  const asked = http.request({ host: '127.0.0.1', port: made.server.port, method, path, headers, agent: false });
  const response = within(
    new Promise((resolve, reject) => {
      asked.on('response', resolve);
      asked.on('error', reject);
    }),
    `an answer to ${method} ${path}`,
  );
  response.catch(() => {});
  const ended = response.then((answer) => new Promise((resolve) => {
    answer.setEncoding('utf8');
    answer.on('data', (text) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop();
      for (const line of parts) lines.add(line);
    });
    answer.on('error', () => {});
    answer.on('close', () => {
      lines.end('the answer ended');
      resolve();
    });
  }));
  asked.end(body);
  keep(made.clients, { end: () => asked.destroy() });
  return {
    response,
    ended,
    /** The next line, or the next for which `matches` holds. */
    async line(matches = () => true) {
      const line = await lines.find(matches, 'a line', undefined, taken);
      taken = lines.all.findIndex((candidate, index) => index >= taken && matches(candidate)) + 1;
      return line;
    },
    async whole() {
      await within(ended, `the end of ${method} ${path}`);
      return lines.all.map((line) => `${line}\n`).join('') + rest;
    },
    end: () => asked.destroy(),
  };
}
