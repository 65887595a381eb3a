// Limits of a server and quotas of its applications: what is beyond one is refused with the documented code, and nothing
// else suffers.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, test } from 'node:test';
import { Raw } from './clients.mjs';
import { group, keep } from './group.mjs';

const app = (id, ...settings) => `[[apps]]\n${[`id = "${id}"`, `key = "key-${id}"`, `secret = "secret-${id}"`, ...settings].join('\n')}\n`;

/** A group whose applications are named by their ids; each test has its own. */
function applications(settings) {
  const made = group(settings);
  made.backOf = (id) => made.library({ appId: id, key: `key-${id}`, secret: `secret-${id}` });
  made.rawOf = (id) => keep(made.clients, new Raw(made.server, `/app/key-${id}?protocol=7`));
  made.connected = async (id) => {
    const raw = made.rawOf(id);
    const [first] = await raw.frames.first(1);
    assert.equal(first.event, 'pusher:connection_established', first.text);
    raw.socketId = JSON.parse(first.data).socket_id;
    return raw;
  };
  /** The answer to subscribing: its event, and the type and the status of a refusal. */
  made.subscribe = async (id, raw, channel, channelData) => {
    const from = raw.frames.length;
    const text = `${raw.socketId}:${channel}${channelData === undefined ? '' : `:${channelData}`}`;
    const auth = `key-${id}:${createHmac('sha256', `secret-${id}`).update(text).digest('hex')}`;
    raw.send({ event: 'pusher:subscribe', data: { channel, auth, channel_data: channelData } });
    const answer = await raw.frames.find((frame) => frame.channel === channel, 'an answer', undefined, from);
    return answer.event === 'pusher:subscription_error' ? [answer.data.type, answer.data.status] : answer.event;
  };
  return made;
}

const SUCCEEDED = 'pusher_internal:subscription_succeeded';

async function status(call) {
  try {
    return (await call).status;
  } catch (error) {
    return error.status ?? assert.fail(error);
  }
}

describe('quotas of applications', () => {
  const made = applications({
    shards: 2,
    config: [
      app('1', 'connections_max = 3'),
      app('2', 'publishes_per_second_max = 5'),
      app('3', 'subscriptions_per_connection_max = 3'),
      app('4', 'presence_members_max = 2', 'presence_user_bytes_max = 64', 'user_id_characters_max = 8'),
      app('5', 'event_data_bytes_max = 100', 'channel_name_bytes_max = 20', 'event_name_bytes_max = 10', 'client_events = true'),
      app('6', 'watchlist_users_max = 2'),
      app('7', 'client_events = true', 'client_events_per_second_max = 1'),
      app('8'),
    ].join(''),
  });

  test('a connection too many is upgraded, told and closed with 4004, until another ends', async () => {
    const held = [await made.connected('1'), await made.connected('1'), await made.connected('1')];
    for (let n = 0; n < 6; n += 1) {
      const refused = made.rawOf('1');
      assert.equal((await refused.closed()).code, 4004);
      assert.deepEqual(refused.frames.all.map(({ event, data }) => [event, data.code]), [['pusher:error', 4004]]);
    }
    await made.connected('8');
    held[0].socket.close();
    await held[0].closed();
    await made.connected('1');
    assert.equal((await made.rawOf('1').closed()).code, 4004);
    for (const raw of held.slice(1)) await raw.settled();
  });

  test('publishes beyond a rate are refused with 403, and none of what was refused is delivered', async () => {
    const [raw, back] = [await made.connected('2'), made.backOf('2')];
    await made.subscribe('2', raw, 'room');
    const calls = Array.from({ length: 40 }, (_, n) => status(back.trigger('room', 'step', n)).then((got) => [n, got]));
    const outcomes = await Promise.all(calls);
    const accepted = outcomes.filter(([, got]) => got === 200).map(([n]) => n);
    assert.ok(outcomes.every(([, got]) => got === 200 || got === 403), JSON.stringify(outcomes));
    // Forty calls may stretch over several seconds on a slow machine, but not over eight.
    assert.ok(accepted.length >= 5 && accepted.length < 40, `${accepted.length} accepted`);
    await raw.frames.until(() => raw.frames.all.filter(({ event }) => event === 'step').length === accepted.length, 'what was accepted');
    const seen = (await raw.settled()).filter(({ event }) => event === 'step').map(({ data }) => Number(data));
    assert.deepEqual(seen.sort((one, other) => one - other), accepted);
    // Each channel of an event counts, and an event that does not fit is refused whole.
    assert.equal(await status(back.trigger(['a', 'b', 'c', 'd', 'e', 'room'], 'whole', {})), 403);
    assert.ok((await raw.settled()).every(({ event }) => event !== 'whole'));
    assert.equal(await status(made.backOf('8').trigger('room', 'step', {})), 200);
  });

  test('a connection has so many subscriptions and no more', async () => {
    const raw = await made.connected('3');
    for (const name of ['a', 'b', 'c']) assert.equal(await made.subscribe('3', raw, name), SUCCEEDED);
    assert.deepEqual(await made.subscribe('3', raw, 'd'), ['LimitReached', 4004]);
    raw.send({ event: 'pusher:unsubscribe', data: { channel: 'b' } });
    assert.equal(await made.subscribe('3', raw, 'd'), SUCCEEDED);
  });

  test('members of presence channels are held to the limits of their application', async () => {
    const raws = await Promise.all(Array.from({ length: 4 }, () => made.connected('4')));
    const join = (raw, user) => made.subscribe('4', raw, 'presence-room', JSON.stringify(user));
    assert.deepEqual(await join(raws[0], { user_id: '123456789' }), ['LimitReached', 4301]);
    assert.deepEqual(await join(raws[0], { user_id: '1', user_info: 'x'.repeat(64) }), ['LimitReached', 4301]);
    assert.equal(await join(raws[0], { user_id: '12345678' }), SUCCEEDED);
    assert.equal(await join(raws[1], { user_id: '2' }), SUCCEEDED);
    assert.deepEqual(await join(raws[2], { user_id: '3' }), ['LimitReached', 4100]);
    assert.equal(await join(raws[3], { user_id: '2' }), SUCCEEDED);
  });

  test('names and data are held to the limits of their application', async () => {
    const [raw, back] = [await made.connected('5'), made.backOf('5')];
    assert.equal(await made.subscribe('5', raw, `private-${'c'.repeat(12)}`), SUCCEEDED);
    assert.deepEqual(await made.subscribe('5', raw, `private-${'c'.repeat(13)}`), ['LimitReached', 4009]);
    assert.equal(await status(back.trigger('c'.repeat(20), 'x', {})), 200);
    assert.equal(await status(back.trigger('c'.repeat(21), 'x', {})), 400);
    assert.equal(await status(back.trigger('room', 'n'.repeat(10), {})), 200);
    assert.equal(await status(back.trigger('room', 'n'.repeat(11), {})), 400);
    assert.equal(await status(back.trigger('room', 'x', 'd'.repeat(100))), 200);
    assert.equal(await status(back.trigger('room', 'x', 'd'.repeat(101))), 413);
    const refused = async (event, data) => {
      const from = raw.frames.length;
      raw.send({ event, channel: `private-${'c'.repeat(12)}`, data });
      await raw.settled();
      return raw.frames.all.slice(from).filter((frame) => frame.event === 'pusher:error').map(({ data: { code } }) => code);
    };
    assert.deepEqual(await refused('client-abc', 'd'.repeat(98)), []);
    assert.deepEqual(await refused('client-abcd', {}), [4301]);
    assert.deepEqual(await refused('client-abc', 'd'.repeat(99)), [4301]);
  });

  test('a watchlist is held to the limit of its application', async () => {
    const raw = await made.connected('6');
    const text = JSON.stringify({ id: 'u', watchlist: ['a', 'b', 'c'] });
    const auth = `key-6:${createHmac('sha256', 'secret-6').update(`${raw.socketId}::user::${text}`).digest('hex')}`;
    raw.send({ event: 'pusher:signin', data: { auth, user_data: text } });
    const error = await raw.frames.find(({ event }) => event === 'pusher:error', 'the error');
    assert.equal(error.data.code, 4302);
    const told = await raw.frames.find(({ event }) => event === 'pusher_internal:watchlist_events', 'the state');
    assert.deepEqual(JSON.parse(told.data), { events: [{ name: 'offline', user_ids: ['a', 'b'] }] });
  });

  test('client events are held to the rate of their application', async () => {
    const raw = await made.connected('7');
    await made.subscribe('7', raw, 'private-room');
    for (let n = 0; n < 20; n += 1) raw.send({ event: 'client-x', channel: 'private-room', data: n });
    const refused = (await raw.settled()).filter(({ event }) => event === 'pusher:error');
    assert.ok(refused.length >= 10 && refused.length < 20, `${refused.length} refused`);
    for (const { data } of refused) assert.equal(data.code, 4301);
  });
});

describe('quotas with the statuses of soketi', () => {
  const made = applications({ shards: 2, config: `compat = "soketi"\n${app('1', 'connections_max = 1')}${app('2', 'publishes_per_second_max = 1')}` });

  test('publishes beyond a rate are refused with 429', async () => {
    const back = made.backOf('2');
    const got = await Promise.all(Array.from({ length: 20 }, () => status(back.trigger('room', 'x', {}))));
    assert.ok(got.includes(429) && got.every((one) => one === 200 || one === 429), String(got));
  });

  test('a connection too many is closed with 4100', async () => {
    await made.connected('1');
    const refused = made.rawOf('1');
    assert.equal((await refused.closed()).code, 4100);
  });
});

describe('the limit of connections of a server', () => {
  const made = applications({ config: `shards = 1\nconnections_per_shard_max = 8\n${app('1')}` });

  test('closes with 4100 whom it has no room for, and takes the next when one has left', async () => {
    const held = [];
    let refused;
    for (let n = 0; n < 12 && !refused; n += 1) {
      const raw = made.rawOf('1');
      const [first] = await raw.frames.first(1);
      if (first.event === 'pusher:connection_established') held.push(raw);
      else refused = raw;
    }
    assert.ok(refused && held.length >= 4, `${held.length} held`);
    assert.equal((await refused.closed()).code, 4100);
    for (const raw of held.splice(0)) {
      raw.socket.close();
      await raw.closed();
    }
    await made.connected('1');
  });
});
