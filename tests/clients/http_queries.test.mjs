// What the HTTP API tells of channels and users: every call through the npm `pusher` library, every body to the letter.
//
// A client that was answered is counted, and one that left no longer is, whatever shards it, the channel and the request
// are on: nothing here waits between the one and the other.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { subscribed } from './clients.mjs';
import { group, keep } from './group.mjs';
import { Lingering } from './lingering.mjs';
import { Seat, signed } from './roster.mjs';

/** Adds to a group what queries need. */
function queries(made) {
  /** The status and the body of a GET as text. The library throws what is not 2xx: its error has both too. */
  made.get = (path, params) => answered(made.back.get({ path, params }));
  made.post = (path, body, params) => answered(made.back.post({ path, body, params }));
  made.told = async (path, params) => {
    const { status, body } = await made.get(path, params);
    assert.equal(status, 200, body);
    return JSON.parse(body);
  };
  /** A raw client that is subscribed to the channels. */
  made.listening = async (...names) => {
    const raw = await made.raw();
    for (const name of names) {
      raw.send({ event: 'pusher:subscribe', data: { channel: name } });
      await raw.frames.find(({ event, channel }) => event === 'pusher_internal:subscription_succeeded' && channel === name, `an answer of ${name}`);
    }
    return raw;
  };
  made.member = async (name, user) => {
    const seat = new Seat(await made.raw(), name);
    await seat.join(user);
    return seat;
  };
  return made;
}

async function answered(call) {
  try {
    const answer = await call;
    return { status: answer.status, body: await answer.text() };
  } catch (error) {
    if (error.status === undefined) throw error;
    return { status: error.status, body: error.body };
  }
}

/** Unsubscribes, and returns when the server has read it. */
async function leave(raw, name) {
  raw.send({ event: 'pusher:unsubscribe', data: { channel: name } });
  await raw.settled();
}

for (const shards of [1, 2, 4]) {
  describe(`queries with ${shards} shards`, () => {
    const made = queries(group({ shards }));

    test('a channel: occupied, and the counts that are asked for', async () => {
      const name = 'q-public';
      assert.deepEqual(await made.get(`/channels/${name}`), { status: 200, body: '{"occupied":false}' });
      const [one, two] = [await made.listening(name), await made.listening(name)];
      assert.deepEqual(await made.get(`/channels/${name}`), { status: 200, body: '{"occupied":true}' });
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'subscription_count' }), { occupied: true, subscription_count: 2 });
      await leave(one, name);
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'subscription_count' }), { occupied: true, subscription_count: 1 });
      await leave(two, name);
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'subscription_count' }), { occupied: false, subscription_count: 0 });
    });

    test('a presence channel: users and subscriptions are counted apart', async () => {
      const name = 'presence-q-counts';
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'user_count,subscription_count' }), { occupied: false, user_count: 0, subscription_count: 0 });
      for (const id of [1, 1, 1, 2]) await made.member(name, { user_id: id });
      assert.deepEqual(await made.told(`/channels/${name}`), { occupied: true });
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'user_count' }), { occupied: true, user_count: 2 });
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'user_count,subscription_count' }), { occupied: true, user_count: 2, subscription_count: 4 });
    });

    test('a cache channel: the data of its last event and the seconds that it is kept', async () => {
      const name = 'cache-q';
      assert.deepEqual(await made.told(`/channels/${name}`, { info: 'cache' }), { occupied: false, cache: null });
      await made.back.trigger(name, 'state', { n: 1, text: 'Größe "q"' });
      const { cache, ...rest } = await made.told(`/channels/${name}`, { info: 'subscription_count,cache' });
      assert.deepEqual(rest, { occupied: false, subscription_count: 0 });
      assert.equal(cache.data, '{"n":1,"text":"Größe \\"q\\""}');
      assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 1_700 && cache.ttl <= 1_800, `ttl ${cache.ttl}`);
      assert.deepEqual(Object.keys(cache).sort(), ['data', 'ttl']);
    });

    test('the users of a presence channel, each once', async () => {
      const name = 'presence-q-users';
      assert.deepEqual(await made.get(`/channels/${name}/users`), { status: 200, body: '{"users":[]}' });
      const seats = [];
      for (const id of ['ann', 22, 22, 'größe']) seats.push(await made.member(name, { user_id: id, user_info: { secret: true } }));
      const { users, ...rest } = await made.told(`/channels/${name}/users`);
      assert.deepEqual(rest, {});
      assert.deepEqual(users.map((user) => user.id).sort(), ['22', 'ann', 'größe']);
      for (const user of users) assert.deepEqual(Object.keys(user), ['id']);
      seats[1].raw.socket.close();
      await seats[1].raw.closed();
      assert.equal((await made.told(`/channels/${name}/users`)).users.length, 3);
      await leave(seats[0].raw, name);
      assert.deepEqual((await made.told(`/channels/${name}/users`)).users.map((user) => user.id).sort(), ['22', 'größe']);
    });

    test('what pusher-js members see is what the API tells', async () => {
      const name = 'presence-q-truth';
      const seats = await Promise.all(Array.from({ length: 40 }, () => made.raw().then((raw) => new Seat(raw, name))));
      for (const [n, seat] of seats.entries()) seat.ask({ user_id: n % 25 });
      for (const seat of seats) await seat.holds(Array.from({ length: 25 }, (_, n) => n));
      for (const seat of seats.slice(0, 30)) seat.leave();
      for (const seat of seats.slice(0, 30)) await seat.raw.settled();
      const { users } = await made.told(`/channels/${name}/users`);
      await seats[39].holds(users.map((user) => user.id));
      assert.deepEqual(users.map((user) => Number(user.id)).sort((one, other) => one - other), [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    });

    test('the channels that are occupied, with what is asked for', async () => {
      const before = (await made.told('/channels')).channels;
      assert.ok(!('list-a' in before));
      const raw = await made.listening('list-a', 'list-b');
      await made.listening('list-b');
      await made.member('presence-list-c', { user_id: 1 });
      await made.member('presence-list-c', { user_id: 1 });
      await made.back.trigger('cache-list-nobody', 'x', {});
      const { channels, ...rest } = await made.told('/channels');
      assert.deepEqual(rest, {});
      for (const name of ['list-a', 'list-b', 'presence-list-c']) assert.deepEqual(channels[name], {}, name);
      assert.ok(!('cache-list-nobody' in channels), 'a channel that only caches is not occupied');
      assert.ok(Object.keys(channels).every((name) => !name.startsWith('#')));
      assert.deepEqual(await made.told('/channels', { filter_by_prefix: 'list-' }), { channels: { 'list-a': {}, 'list-b': {} } });
      assert.deepEqual(await made.told('/channels', { filter_by_prefix: 'list-', info: 'subscription_count' }), {
        channels: { 'list-a': { subscription_count: 1 }, 'list-b': { subscription_count: 2 } },
      });
      assert.deepEqual(await made.told('/channels', { filter_by_prefix: 'presence-list', info: 'user_count' }), { channels: { 'presence-list-c': { user_count: 1 } } });
      assert.deepEqual(await made.told('/channels', { filter_by_prefix: 'presence-list', info: 'user_count,subscription_count' }), {
        channels: { 'presence-list-c': { user_count: 1, subscription_count: 2 } },
      });
      assert.deepEqual(await made.get('/channels', { filter_by_prefix: 'no-such-' }), { status: 200, body: '{"channels":{}}' });
      await leave(raw, 'list-a');
      assert.deepEqual(await made.told('/channels', { filter_by_prefix: 'list-' }), { channels: { 'list-b': {} } });
    });

    test('thousands of channels are all listed, each once', async () => {
      const count = 3_000;
      const raw = await made.raw();
      for (let n = 0; n < count; n += 1) raw.send({ event: 'pusher:subscribe', data: { channel: `thousands-${n}` } });
      await raw.frames.until(() => raw.frames.all.filter(({ event }) => event === 'pusher_internal:subscription_succeeded').length === count, 'all answers');
      const { status, body } = await made.get('/channels', { filter_by_prefix: 'thousands-', info: 'subscription_count' });
      assert.equal(status, 200);
      assert.equal(body.match(/"thousands-/g).length, count);
      const { channels } = JSON.parse(body);
      assert.equal(Object.keys(channels).length, count);
      assert.ok(Object.values(channels).every((told) => told.subscription_count === 1 && Object.keys(told).length === 1));
    });

    test('who was answered is counted, and who left is not, at once', async () => {
      for (let n = 0; n < 40; n += 1) {
        const name = `at-once-${n % 4}`;
        const raws = [];
        for (let count = 1; count <= 3; count += 1) {
          raws.push(await made.listening(name));
          assert.deepEqual(await made.told(`/channels/${name}`, { info: 'subscription_count' }), { occupied: true, subscription_count: count }, `round ${n}`);
        }
        await leave(raws[0], name);
        assert.deepEqual(await made.told(`/channels/${name}`, { info: 'subscription_count' }), { occupied: true, subscription_count: 2 }, `round ${n}`);
        raws[1].socket.close();
        await raws[1].closed();
        assert.deepEqual(await made.told(`/channels/${name}`, { info: 'subscription_count' }), { occupied: true, subscription_count: 1 }, `round ${n}`);
        await leave(raws[2], name);
        assert.deepEqual(await made.told(`/channels/${name}`), { occupied: false }, `round ${n}`);
      }
    });

    test('queries on one connection are answered in order, between publishes', async () => {
      await made.listening('order-a');
      await made.member('presence-order-b', { user_id: 'x' });
      const calls = [];
      for (let n = 0; n < 20; n += 1) {
        calls.push(made.told('/channels/order-a'), made.told('/channels/presence-order-b/users'), made.back.trigger(['order-a', 'presence-order-b'], 'x', {}).then(({ status }) => status), made.told('/channels', { filter_by_prefix: 'order-' }));
      }
      const answers = await Promise.all(calls);
      for (let n = 0; n < 20; n += 1) assert.deepEqual(answers.slice(n * 4, n * 4 + 4), [{ occupied: true }, { users: [{ id: 'x' }] }, 200, { channels: { 'order-a': {} } }]);
    });

    test('info on a publish tells of its channels after the event was sequenced', async () => {
      await made.listening('info-a');
      await made.listening('info-a');
      await made.member('presence-info-b', { user_id: 1 });
      await made.member('presence-info-b', { user_id: 1 });
      const publish = (channels, info) => made.post('/events', { name: 'x', data: '{}', channels, info });
      const told = async (...call) => {
        const { status, body } = await publish(...call);
        assert.equal(status, 200, body);
        return JSON.parse(body);
      };
      assert.deepEqual(await told(['info-a', 'presence-info-b', 'info-nobody', 'presence-info-nobody'], 'subscription_count,user_count'), {
        channels: {
          'info-a': { subscription_count: 2 },
          'presence-info-b': { user_count: 1, subscription_count: 2 },
          'info-nobody': { subscription_count: 0 },
          'presence-info-nobody': { user_count: 0, subscription_count: 0 },
        },
      });
      assert.deepEqual(await told(['info-a', 'presence-info-b'], 'user_count'), { channels: { 'info-a': {}, 'presence-info-b': { user_count: 1 } } });
      assert.deepEqual(await publish(['info-a'], undefined), { status: 200, body: '{}' });
      const answer = await made.back.trigger(['info-a'], 'x', {}, { info: 'subscription_count' });
      assert.deepEqual(await answer.json(), { channels: { 'info-a': { subscription_count: 2 } } });
    });

    test('info in a batch is told event by event', async () => {
      await made.listening('batch-info-a');
      await made.member('presence-batch-info', { user_id: 1 });
      const batch = (events) => made.post('/batch_events', { batch: events.map((event) => ({ name: 'x', data: '{}', ...event })) });
      const { status, body } = await batch([
        { channel: 'batch-info-a', info: 'subscription_count' },
        { channel: 'batch-info-a' },
        { channel: 'presence-batch-info', info: 'user_count,subscription_count' },
        { channel: 'batch-info-nobody', info: 'subscription_count,user_count' },
      ]);
      assert.equal(status, 200, body);
      assert.deepEqual(JSON.parse(body), { batch: [{ subscription_count: 1 }, {}, { user_count: 1, subscription_count: 1 }, { subscription_count: 0 }] });
      assert.deepEqual(await batch([{ channel: 'batch-info-a' }]), { status: 200, body: '{}' });
      const answer = await made.back.triggerBatch([{ channel: 'batch-info-a', name: 'x', data: {}, info: 'subscription_count' }]);
      assert.deepEqual(await answer.json(), { batch: [{ subscription_count: 1 }] });
    });

    test('the deprecated publish is answered 202, and the event arrives', async () => {
      const channel = await subscribed(await made.join(), 'old-form');
      const { status } = await answered(made.back.post({ path: '/channels/old-form/events', params: { name: 'hello' }, body: { any: 'thing' } }));
      assert.equal(status, 202);
      assert.deepEqual((await channel.arrivals.find(([event]) => event === 'hello', 'the event'))[1], { any: 'thing' });
    });

    test('the deprecated statistics of a channel', async () => {
      await made.listening('stats-a');
      await made.member('presence-stats-b', { user_id: 1 });
      assert.deepEqual(await made.told('/channels/stats-a/stats'), { occupied: true });
      assert.deepEqual(await made.told('/channels/presence-stats-b/stats'), { occupied: true, user_count: 1 });
    });

    test('a Close frame frees its subscriptions at once, while TCP lives on', async () => {
      const names = ['lingering', 'presence-lingering'];
      for (let round = 0; round < 5; round += 1) {
        const client = keep(made.clients, await Lingering.connect(made.server));
        client.send({ event: 'pusher:subscribe', data: { channel: names[0] } });
        client.send({ event: 'pusher:subscribe', data: signed(client, names[1], '{"user_id":1}') });
        await client.frames.first(3);
        for (const name of names) assert.deepEqual(await made.told(`/channels/${name}`), { occupied: true });
        client.close(1000);
        await client.frames.find(({ event }) => event === 'close', 'the answering Close');
        for (const name of names) assert.deepEqual(await made.told(`/channels/${name}`), { occupied: false });
        assert.deepEqual(await made.told(`/channels/${names[1]}/users`), { users: [] });
      }
    });

    test('ended connections are vacated at once, whatever ended them', async () => {
      const name = 'vacated';
      for (const end of [(raw) => raw.socket.close(), (raw) => raw.socket.send(Buffer.from([1]), { binary: true })]) {
        const raws = await Promise.all(Array.from({ length: 6 }, () => made.listening(name)));
        assert.equal((await made.told(`/channels/${name}`, { info: 'subscription_count' })).subscription_count, 6);
        for (const raw of raws) end(raw);
        await Promise.all(raws.map((raw) => raw.closed()));
        assert.deepEqual(await made.told(`/channels/${name}`), { occupied: false });
        assert.deepEqual(await made.told('/channels', { filter_by_prefix: name }), { channels: {} });
      }
    });
  });
}

describe('queries that are refused', () => {
  const made = queries(group({ shards: 2 }));

  const refusals = [
    ['user_count of a public channel', '/channels/room', { info: 'user_count' }, 400],
    ['cache of a channel that is none', '/channels/room', { info: 'cache' }, 400],
    ['an attribute that does not exist', '/channels/room', { info: 'weather' }, 400],
    ['user_count of all channels', '/channels', { info: 'user_count' }, 400],
    ['user_count with a prefix that is no presence channel\'s', '/channels', { info: 'user_count', filter_by_prefix: 'private-' }, 400],
    ['an attribute of the list that does not exist', '/channels', { info: 'weather' }, 400],
    ['users of a public channel', '/channels/room/users', {}, 400],
    ['users of a private channel', '/channels/private-room/users', {}, 400],
    ['a channel that cannot be', '/channels/with%20space', {}, 400],
    ['a path that does not exist', '/channels/room/nothing', {}, 404],
  ];
  for (const [what, path, params, status] of refusals) {
    test(`${status}: ${what}`, async () => {
      const answer = await made.get(path, params);
      assert.equal(answer.status, status, answer.body);
      assert.ok(answer.body.length > 0);
    });
  }

  test('405: a query that is posted, with the method that is right', async () => {
    for (const path of ['/channels', '/channels/room', '/channels/presence-a/users']) assert.equal((await made.post(path, {})).status, 405);
    assert.equal((await made.get('/users/a/terminate_connections')).status, 405);
  });

  test('401: every query of a stranger', async () => {
    const stranger = made.library({ secret: 'wrong' });
    for (const path of ['/channels', '/channels/room', '/channels/presence-a/users']) assert.equal((await answered(stranger.get({ path }))).status, 401);
    assert.equal((await answered(stranger.terminateUserConnections('a'))).status, 401);
  });
});

describe('counts of subscriptions', () => {
  const made = queries(group({ shards: 2, config: 'subscription_counts = true\n' }));
  const counts = (raw, name) => raw.frames.all.filter(({ event, channel }) => event === 'pusher_internal:subscription_count' && channel === name).map(({ data }) => JSON.parse(data).subscription_count);

  test('are told to every subscriber as they change, in the documented shape', async () => {
    const name = 'counted';
    const first = await made.listening(name);
    const frame = await first.frames.find(({ event }) => event === 'pusher_internal:subscription_count', 'the first count');
    assert.deepEqual(JSON.parse(frame.text), { event: 'pusher_internal:subscription_count', channel: name, data: '{"subscription_count":1}' });
    const others = [];
    for (let count = 2; count <= 6; count += 1) {
      others.push(await made.listening(name));
      for (const raw of [first, ...others]) await raw.frames.until(() => counts(raw, name).at(-1) === count, () => `the count ${count}, got ${counts(raw, name)}`);
    }
    for (const [left, raw] of others.entries()) {
      raw.send({ event: 'pusher:unsubscribe', data: { channel: name } });
      await first.frames.until(() => counts(first, name).at(-1) === 5 - left, () => `the count ${5 - left}, got ${counts(first, name)}`);
    }
    assert.deepEqual(counts(first, name), [1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1]);
  });

  test('pusher-js has them on the channel', async () => {
    const channel = await subscribed(await made.join(), 'counted-js');
    const [, data] = await channel.arrivals.find(([event, data]) => event === 'pusher:subscription_count' && data.subscription_count === 1, 'the count');
    assert.deepEqual(data, { subscription_count: 1 });
    await made.listening('counted-js');
    await channel.arrivals.find(([event, data]) => event === 'pusher:subscription_count' && data.subscription_count === 2, 'the count');
    assert.equal(channel.subscriptionCount, 2);
  });

  test('are not told on presence channels', async () => {
    const seat = await made.member('presence-counted', { user_id: 1 });
    await made.member('presence-counted', { user_id: 2 });
    await seat.holds([1, 2]);
    await made.back.trigger('presence-counted', 'fence', {});
    await seat.until(() => seat.events.length === 1, 'the fence');
    assert.deepEqual(counts(seat.raw, 'presence-counted'), []);
  });

  test('are told on private and cache channels', async () => {
    for (const name of ['private-counted', 'cache-counted']) {
      const raw = await made.raw();
      raw.send({ event: 'pusher:subscribe', data: name.startsWith('private-') ? signed(raw, name) : { channel: name } });
      await raw.frames.until(() => counts(raw, name).at(-1) === 1, 'the count');
    }
  });
});

describe('counts of subscriptions, unless an application wants them', () => {
  const made = queries(group({ shards: 2 }));

  test('are not told', async () => {
    const raw = await made.listening('uncounted');
    await made.listening('uncounted');
    await made.back.trigger('uncounted', 'fence', {});
    await raw.frames.find(({ event }) => event === 'fence', 'the fence');
    assert.ok(raw.frames.all.every(({ event }) => event !== 'pusher_internal:subscription_count'));
  });
});

describe('with the shapes of soketi', () => {
  const made = queries(group({ shards: 2, config: 'compat = "soketi"\n' }));
  const page = async (path) => {
    const answer = await fetch(made.server.url + path);
    return { status: answer.status, body: await answer.text() };
  };

  test('a publish, a batch and a termination are answered {"ok":true}', async () => {
    assert.deepEqual(await made.post('/events', { name: 'x', data: '{}', channels: ['a'] }), { status: 200, body: '{"ok":true}' });
    assert.deepEqual(await made.post('/batch_events', { batch: [{ name: 'x', data: '{}', channel: 'a' }] }), { status: 200, body: '{"ok":true}' });
    assert.deepEqual(await made.post('/users/u/terminate_connections', {}), { status: 200, body: '{"ok":true}' });
  });

  test('channels are told with their counts, asked or not', async () => {
    await made.listening('sok-a');
    await made.member('presence-sok-b', { user_id: 1, user_info: { name: 'A' } });
    assert.deepEqual(await made.told('/channels', { filter_by_prefix: 'sok-' }), { channels: { 'sok-a': { subscription_count: 1, occupied: true } } });
    assert.deepEqual(await made.told('/channels/sok-a'), { subscription_count: 1, occupied: true });
    assert.deepEqual(await made.told('/channels/sok-nobody'), { subscription_count: 0, occupied: false });
    assert.deepEqual(await made.told('/channels/presence-sok-b'), { subscription_count: 1, occupied: true, user_count: 1 });
    assert.deepEqual(await made.told('/channels/presence-sok-b/users', { with_user_info: '1' }), { users: [{ id: '1', user_info: { name: 'A' } }] });
    assert.deepEqual(await made.told('/channels/presence-sok-b/users'), { users: [{ id: '1' }] });
  });

  test('refusals are JSON', async () => {
    const { status, body } = await made.get('/channels/sok-a/users');
    assert.equal(status, 400);
    assert.deepEqual(Object.keys(JSON.parse(body)).sort(), ['code', 'error']);
  });

  test('data of 100 KB is taken', async () => {
    assert.equal((await made.post('/events', { name: 'x', data: 'x'.repeat(102_400), channels: ['a'] })).status, 200);
    assert.equal((await made.post('/events', { name: 'x', data: 'x'.repeat(102_401), channels: ['a'] })).status, 413);
  });

  test('the status pages', async () => {
    assert.deepEqual(await page('/'), { status: 200, body: 'OK' });
    assert.deepEqual(await page('/ready'), { status: 200, body: 'OK' });
    assert.equal((await page('/accept-traffic')).status, 200);
    const usage = await page('/usage');
    assert.equal(usage.status, 200, usage.body);
    assert.ok(JSON.parse(usage.body).memory.used > 0, usage.body);
  });
});
