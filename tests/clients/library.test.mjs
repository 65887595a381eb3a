// The file that lets stock pusher-js resume, in node as in a page (chromium.test.mjs has it in a browser).
//
// Broken on purpose, each failed a test here: sending no `resume`, not counting serials, keeping what a channel has by its name
// across an unsubscription, raising no gap, leaving an encrypted channel's gap to pusher-js (which decrypts it), and reading the
// first connection's transport alone.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { authorizer, subscribed } from './clients.mjs';
import { group } from './group.mjs';
import { Line } from './line.mjs';
import { signed } from './roster.mjs';

const FILE = fileURLToPath(new URL('../../src/wire/pusher/recovery.js', import.meta.url));
const Outpour = createRequire(import.meta.url)(FILE);
const KEPT = 'retained_channels = "kept-* private-kept-* presence-kept-* private-encrypted-kept-*"\n';
const GAP = 'outpour:gap';
/** As long as this a session over HTTP outlives its requests. */
const GAP_MS = 800;

describe('pusher-js with the file', () => {
  const made = group({ shards: 2, config: `${KEPT}retention_messages_max = 40\nfallback_gap_ms_max = ${GAP_MS}\n` });
  const lines = [];
  before(() => (made.back = made.library({ encryptionMasterKeyBase64: randomBytes(32).toString('base64') })));
  after(() => lines.forEach((line) => line.close()));

  /** A client on a line of its own, with all gaps that it is told of. */
  async function join(...transports) {
    const line = await Line.to(made.server.port);
    lines.push(line);
    const channelAuthorization = authorizer(made.back, { user_id: `user-${lines.length}`, user_info: {} });
    const over = { wsPort: line.port, httpHost: '127.0.0.1', httpPort: line.port, enabledTransports: transports.length > 0 ? transports : ['ws'] };
    const client = await made.join({ ...over, channelAuthorization }, Outpour.recover);
    const gaps = [];
    client.bind(GAP, (gap) => gaps.push(gap));
    return { client, line, gaps, isOverHttp: over.enabledTransports[0] !== 'ws' };
  }

  const publish = async (name, from, to) => {
    for (let n = from; n <= to; n += 1) await made.back.trigger(name, 'tick', { n });
  };
  const ticks = (channel) => channel.arrivals.all.filter(([event]) => event === 'tick').map(([, { n }]) => n);
  const until = (channel, n) => channel.arrivals.find(([event, data]) => event === 'tick' && data.n === n, `event ${n}`);
  const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
  const away = ({ client, line, isOverHttp }) => {
    const from = client.states.length;
    line.cut();
    // A request that began meanwhile waits, and then finds that its session is over.
    if (isOverHttp) return new Promise((resolve) => setTimeout(resolve, 2 * GAP_MS + 500));
    return client.states.find((state) => state === 'connecting', 'that it is away', undefined, from);
  };
  const answered = (channel, from) => channel.arrivals.find(([event]) => event === 'pusher:subscription_succeeded', 'an answer', undefined, from);

  test('the file is served to pages of any origin', async () => {
    const url = `${made.server.url}/outpour/1/recovery.js`;
    const response = await fetch(url);
    assert.equal(response.status, 200);
    assert.equal(await response.text(), readFileSync(FILE, 'utf8'));
    const head = await fetch(url, { method: 'HEAD' });
    for (const { headers } of [response, head]) {
      assert.equal(headers.get('content-type'), 'text/javascript; charset=utf-8');
      assert.equal(headers.get('access-control-allow-origin'), '*');
      assert.equal(headers.get('cache-control'), 'public, max-age=86400');
      assert.equal(Number(headers.get('content-length')), readFileSync(FILE).length);
    }
    assert.equal((await fetch(`${made.server.url}/outpour/2/recovery.js`)).status, 404);
  });

  const ways = ['', 'private-', 'presence-', 'private-encrypted-'].map((kind) => [kind, 'ws']);
  // pusher-js gives a stream that breaks no second chance, and goes on with polls.
  for (const kind of ['', 'private-encrypted-']) ways.push([kind, 'xhr_streaming', 'xhr_polling'], [kind, 'xhr_polling']);
  for (const [kind, ...transports] of ways) {
    const transport = transports.join('-');
    test(`a ${kind || 'public '}channel over ${transports.join(' and ')} has every event once and in order, whatever happens to its connection`, async () => {
      const [name, plain] = [`${kind}kept-back-${transport}`, `${kind}plain-${transport}`];
      const [one, steady] = [await join(...transports), await join()];
      const [channel, lost, witness] = [await subscribed(one.client, name), await subscribed(one.client, plain), await subscribed(steady.client, name)];
      await publish(name, 1, 5);
      await publish(plain, 1, 1);
      await until(lost, 1);
      let published = 5;
      for (let round = 0; round < 2; round += 1) {
        await until(channel, published);
        await away(one);
        await publish(name, published + 1, published + 10);
        await publish(plain, 2, 2);
        const from = [channel.arrivals.length, lost.arrivals.length];
        one.line.mend();
        await publish(name, published + 11, published + 15);
        await answered(channel, from[0]);
        await answered(lost, from[1]);
        published += 15;
      }
      await publish(plain, 3, 3);
      await until(lost, 3);
      for (const each of [channel, witness]) {
        await until(each, published);
        assert.deepEqual(ticks(each), numbers(1, published));
      }
      assert.deepEqual(ticks(lost), [1, 3]);
      assert.deepEqual([one.gaps, steady.gaps], [[], []]);
    });
  }

  for (const [name, transport] of [['kept-late', 'ws'], ['private-encrypted-kept-late', 'ws'], ['kept-late-polled', 'xhr_polling']])
  test(`who comes too late to ${name} is told what it misses, on the channel and on the Pusher`, async () => {
    const one = await join(transport);
    const channel = await subscribed(one.client, name);
    await publish(name, 1, 3);
    await until(channel, 3);
    await away(one);
    await publish(name, 4, 100);
    one.line.mend();
    await until(channel, 100);
    const [gap] = one.gaps;
    assert.match(gap.epoch, /^[0-9a-f]{16}$/);
    assert.deepEqual(one.gaps, [{ channel: name, epoch: gap.epoch, from: 4, to: 60, reason: 'evicted' }]);
    assert.deepEqual(channel.arrivals.all.filter(([event]) => event === GAP), [[GAP, gap]]);
    assert.deepEqual(ticks(channel), [...numbers(1, 3), ...numbers(61, 100)]);
    assert.ok(channel.arrivals.all.findIndex(([event]) => event === GAP) < channel.arrivals.all.findIndex(([, data]) => data?.n === 61));
  });

  test('another subscription begins anew', async () => {
    const name = 'kept-anew';
    const one = await join();
    const first = await subscribed(one.client, name);
    await publish(name, 1, 2);
    await until(first, 2);
    one.client.unsubscribe(name);
    // Its answer comes behind the end of the other: pusher-js gives what is still under way to whoever subscribes next.
    await subscribed(one.client, 'fence');
    await publish(name, 3, 4);
    const second = await subscribed(one.client, name);
    await publish(name, 5, 5);
    await until(second, 5);
    await away(one);
    one.client.unsubscribe(name);
    await publish(name, 6, 7);
    const connected = one.client.states.length;
    one.line.mend();
    await one.client.states.find((state) => state === 'connected', 'that it is back', undefined, connected);
    const third = await subscribed(one.client, name);
    await publish(name, 8, 8);
    await until(third, 8);
    assert.deepEqual([ticks(first), ticks(second), ticks(third)], [[1, 2], [5], [8]]);
    assert.deepEqual(one.gaps, []);
  });

  for (const name of ['kept-told', 'private-encrypted-kept-told'])
  test(`a gap that the server tells of names its channel ${name}, and a serial that the server does not know is one`, async () => {
    const one = await join();
    const channel = await subscribed(one.client, name);
    const raw = await made.raw();
    raw.send({ event: 'pusher:subscribe', data: name.startsWith('private-') ? signed(raw, name) : { channel: name } });
    const answer = await raw.frames.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer');
    const { epoch } = JSON.parse(answer.data);
    const told = { epoch, from: 1, to: 999, reason: 'evicted' };
    // In clear, as the server itself would tell it.
    await made.back.post({ path: '/events', body: { name: GAP, channel: name, data: JSON.stringify(told) } });
    await channel.arrivals.find(([event]) => event === GAP, 'a gap');
    await away(one);
    const from = channel.arrivals.length;
    one.line.mend();
    await answered(channel, from);
    await publish(name, 1, 1);
    await until(channel, 1);
    const gaps = [{ channel: name, ...told }, { channel: name, epoch, from: 1000, to: null, reason: 'unknown' }];
    assert.deepEqual(one.gaps, gaps);
    assert.deepEqual(channel.arrivals.all.filter(([event]) => event === GAP), gaps.map((gap) => [GAP, gap]));
    assert.ok(!channel.arrivals.all.some(([event]) => event === 'pusher:subscription_error'));
  });

  test('a server that begins anew is a gap of the old epoch without an end', async () => {
    const name = 'kept-epoch';
    const one = await join();
    const channel = await subscribed(one.client, name);
    await publish(name, 1, 1);
    await until(channel, 1);
    one.line.cut();
    await made.server.stop();
    await made.server.start();
    // Those that the first library keeps open have ended with the server.
    await made.library().trigger(name, 'tick', { n: 2 });
    one.line.mend();
    await until(channel, 2);
    assert.deepEqual(one.gaps, [{ channel: name, epoch: one.gaps[0].epoch, from: 2, to: null, reason: 'epoch' }]);
    assert.deepEqual(ticks(channel), [1, 2]);
  });

  test('what is no Pusher is refused, and one is recovered once', async () => {
    const { client } = await join();
    assert.throws(() => Outpour.recover({}), TypeError);
    const { send_event: send } = client.connection;
    assert.equal(Outpour.recover(client), client);
    assert.equal(client.connection.send_event, send);
  });
});

for (const policy of ['lag', 'latest', 'latest-per-key']) {
  describe(`pusher-js with the file, reading too slowly where that means ${policy}`, () => {
    const limits = 'retention_messages_max = 100000\nretention_bytes_max = 1073741824\nlog_bytes_max = 65536\n';
    const made = group({ shards: 2, config: `${KEPT}slow = "${policy}"\nslow_messages_max = 10\n${limits}` });
    let line;
    after(() => line?.close());

    // Broken on purpose: without `resume`, what came while it was away is missing.
    test('has or is told of every event once, and resumes behind what it was told', async () => {
      const name = 'kept-slow';
      line = await Line.to(made.server.port);
      const client = await made.join({ wsPort: line.port }, Outpour.recover);
      const channel = await subscribed(client, name);
      const filling = 'x'.repeat(9000);
      let last = 0;
      const publish = async (data) => {
        last += 1;
        await made.back.trigger(name, 'tick', { n: last, ...data }, { key: `key-${last % 5}` });
      };
      const until = (n) => channel.arrivals.find(([event, data]) => event === 'tick' && data.n === n, `event ${n}`);
      line.hold();
      while ((await made.server.count('outpour_slow_parked_total')) === 0) {
        assert.ok(last < 3000, 'its socket does not fill');
        for (let n = 0; n < 25; n += 1) await publish({ filling });
      }
      for (let n = 0; n < 50; n += 1) await publish({ filling });
      line.go_on();
      await until(last);
      const from = client.states.length;
      line.cut();
      await client.states.find((state) => state === 'connecting', 'that it is away', undefined, from);
      for (let n = 0; n < 5; n += 1) await publish({});
      line.mend();
      await until(last);
      let next = 1;
      const reasons = new Set();
      for (const [event, data] of channel.arrivals.all) {
        if (event === 'tick') assert.equal(data.n, next);
        else if (event === GAP) assert.equal(data.from, next);
        else continue;
        next = (event === GAP ? data.to : data.n) + 1;
        if (event === GAP) reasons.add(data.reason);
      }
      assert.equal(next, last + 1);
      assert.deepEqual([...reasons], { lag: [], latest: ['latest'], 'latest-per-key': ['superseded'] }[policy]);
    });
  });
}
