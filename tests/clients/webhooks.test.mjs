// Webhooks, sent to a real HTTP server that answers, fails, answers late or hangs; checked with the server library.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { library, Raw, subscribed } from './clients.mjs';
import { client, closeAll, fields, metric, named, opened, receiverThat, serverWith, until } from './told.mjs';
import { Receiver } from './receiver.mjs';
import { APP, freePort } from './server.mjs';

after(closeAll);

describe('what is told', () => {
  let receiver;
  let server;

  beforeEach(async () => {
    if (server) return server.assertAlive();
    receiver = await receiverThat();
    const nobody = `http://127.0.0.1:${await freePort()}/`;
    server = await serverWith(
      [
        { url: nobody },
        { url: `${receiver.url}/all?a=b`, headers: { 'X-Env': 'test, one', Authorization: 'Bearer x' } },
        { url: `${receiver.url}/some`, events: ['channel_occupied', 'cache_miss'], channel_name_starts_with: ['batch-', 'cache-'], channel_name_ends_with: '-x', request_events_max: 50, batch_ms: 200 },
      ],
      'webhook_return_ms = 400\nwebhook_backoff_ms = 20',
    );
  });

  const all = () => receiver.events.all.filter(({ request }) => request.url === '/all?a=b').map(fields);
  const find = (matches, what) => receiver.events.find((event) => event.request.url === '/all?a=b' && matches(event), what);

  test('a channel is occupied and vacated, in signed requests with one event each', async () => {
    const one = client(server);
    const two = client(server);
    await subscribed(one, 'first');
    await subscribed(two, 'first');
    one.disconnect();
    two.disconnect();
    const vacated = await find(named('channel_vacated', 'first'), 'the vacated channel');
    const occupied = await find(named('channel_occupied', 'first'), 'the occupied channel');
    for (const { request } of [occupied, vacated]) {
      const webhook = Receiver.checked(request);
      assert.ok(webhook.isValid());
      assert.equal(webhook.getEvents().length, 1);
      assert.ok(Math.abs(webhook.getTime() - Date.now()) < 60_000);
      assert.equal(request.method, 'POST');
      assert.equal(request.headers['content-type'], 'application/json');
      assert.equal(request.headers['x-pusher-key'], APP.key);
      assert.equal(request.headers['x-env'], 'test, one');
      assert.equal(request.headers.authorization, 'Bearer x');
    }
    const forged = { ...occupied.request, rawBody: `${occupied.request.rawBody} ` };
    assert.equal(Receiver.checked(forged).isValid(), false);
    assert.equal(all().filter(({ channel }) => channel === 'first').length, 2);
    assert.ok(occupied.request.body.time_ms <= vacated.request.body.time_ms);
  });

  test('a member is told of once, however many connections it has', async () => {
    const first = client(server, { user_id: 7, user_info: { name: 'a' } });
    const second = client(server, { user_id: 7 });
    const other = client(server, { user_id: 'bob' });
    await subscribed(first, 'presence-room');
    await subscribed(second, 'presence-room');
    await subscribed(other, 'presence-room');
    first.disconnect();
    second.disconnect();
    await find(named('member_removed', 'presence-room'), 'a removed member');
    other.disconnect();
    await find(named('channel_vacated', 'presence-room'), 'the vacated channel');
    const members = all().filter(({ channel, name }) => channel === 'presence-room' && name.startsWith('member_'));
    assert.equal(all().find(({ channel }) => channel === 'presence-room').name, 'channel_occupied', 'it comes before its members');
    const told = (name, user_id) => members.filter((member) => member.name === name && member.user_id === user_id).length;
    assert.deepEqual([told('member_added', '7'), told('member_removed', '7'), told('member_added', 'bob')], [1, 1, 1]);
  });

  test('a client event carries its data as text, its sender, and the member in a presence channel', async () => {
    const sender = client(server, { user_id: 'ann' });
    const presence = await subscribed(sender, 'presence-talk');
    const plain = await subscribed(sender, 'private-talk');
    presence.trigger('client-said', { text: 'ä"' });
    plain.trigger('client-said', { text: 'plain' });
    const { socket_id } = sender.connection;
    assert.deepEqual(fields(await find(named('client_event', 'presence-talk'), 'the event of a member')), {
      name: 'client_event', channel: 'presence-talk', event: 'client-said', data: '{"text":"ä\\""}', socket_id, user_id: 'ann',
    });
    assert.deepEqual(fields(await find(named('client_event', 'private-talk'), 'the event of a client')), {
      name: 'client_event', channel: 'private-talk', event: 'client-said', data: '{"text":"plain"}', socket_id,
    });
  });

  test('a cache channel without an event is missed', async () => {
    await subscribed(client(server), 'cache-empty');
    assert.deepEqual(fields(await find(named('cache_miss', 'cache-empty'), 'the miss')), { name: 'cache_miss', channel: 'cache-empty' });
    assert.deepEqual(all().filter(({ channel }) => channel === 'cache-empty').map(({ name }) => name), ['channel_occupied', 'cache_miss']);
  });

  test('a webhook with a filter gets its channels alone, several events in a request', async () => {
    const raw = await Raw.connect(server);
    opened.push(() => raw.end());
    for (let index = 0; index < 20; index += 1) raw.send({ event: 'pusher:subscribe', data: { channel: `batch-${index}-x` } });
    for (const channel of ['batch-1', 'other-x', 'cache-x']) raw.send({ event: 'pusher:subscribe', data: { channel } });
    const some = () => receiver.events.all.filter(({ request }) => request.url === '/some');
    await receiver.events.until(() => some().length >= 21, () => `21 events, got ${JSON.stringify(some().map(fields))}`);
    await find(named('channel_occupied', 'other-x'), 'the channel that the filter leaves out');
    const channels = some().map(({ channel }) => channel);
    assert.ok(channels.every((channel) => /^(batch|cache)-.*-?x$/.test(channel)), `${channels}`);
    assert.deepEqual(new Set(some().map(({ name }) => name)), new Set(['channel_occupied', 'cache_miss']));
    const requests = new Set(some().map(({ request }) => request));
    assert.ok(requests.size < 21, `${requests.size} requests`);
    for (const request of requests) assert.ok(Receiver.checked(request).isValid());
  });
});

test('a client that comes back in time is not told of', async () => {
  const receiver = await receiverThat();
  const server = await serverWith([{ url: receiver.url }], 'webhook_return_ms = 2000');
  const back = library(server);
  opened.push(() => back.hangUp());
  const one = client(server);
  await subscribed(one, 'reload');
  await receiver.events.find(named('channel_occupied', 'reload'), 'the occupied channel');
  one.unsubscribe('reload');
  const isOccupied = async () => (await (await back.get({ path: '/channels/reload' })).json()).occupied;
  while (await isOccupied());
  await subscribed(one, 'reload');
  await until(server, 'outpour_webhook_events_cancelled_total', (value) => value === 2);
  await subscribed(one, 'marker');
  one.unsubscribe('marker');
  // It was left later than the other, so its departure is told later too.
  await receiver.events.find(named('channel_vacated', 'marker'), 'the vacated marker');
  assert.deepEqual(receiver.events.all.map(fields).filter(({ channel }) => channel === 'reload'), [{ name: 'channel_occupied', channel: 'reload' }]);
});

test('a channel that counts its subscribers tells how many they are', async () => {
  const receiver = await receiverThat();
  const server = await serverWith([{ url: receiver.url, events: ['subscription_count', 'channel_occupied'] }], '', undefined, { subscription_counts: true });
  const [one, two] = [client(server), client(server)];
  await subscribed(one, 'counted');
  await receiver.events.find((event) => event.subscription_count === 1, 'the first');
  await subscribed(two, 'counted');
  await receiver.events.find((event) => event.subscription_count === 2, 'the second');
  one.disconnect();
  await receiver.events.first(4);
  const event = (count) => ({ name: 'subscription_count', channel: 'counted', subscription_count: count });
  assert.deepEqual(receiver.events.all.map(fields).filter(({ name }) => name === 'subscription_count'), [event(1), event(2), event(1)]);
});

describe('a receiver with troubles', () => {
  /** The numbers that client events of a channel carried, as they were attempted. */
  const attempts = (receiver, channel) => receiver.requests.all.flatMap(({ body }) => body.events).filter((event) => event.channel === channel).map((event) => JSON.parse(event.data));

  const SETTINGS = 'webhook_backoff_ms = 50\nwebhook_timeout_ms = 300';

  async function talking(server, names) {
    const made = client(server);
    const channels = [];
    for (const name of names) channels.push(await subscribed(made, name));
    return channels;
  }

  test('one that fails gets each event until it takes it, in the order of its channel, and other channels go on', async () => {
    let failures = 3;
    const receiver = await receiverThat(({ body }) => (body.events[0].channel === 'private-bad' && failures-- > 0 ? 500 : 200));
    const server = await serverWith([{ url: receiver.url, events: 'client_event' }], SETTINGS);
    const [bad, good] = await talking(server, ['private-bad', 'private-good']);
    for (const number of [1, 2, 3]) {
      bad.trigger('client-n', number);
      good.trigger('client-n', number);
    }
    await receiver.events.first(6);
    assert.deepEqual(attempts(receiver, 'private-bad'), [1, 1, 1, 1, 2, 3]);
    assert.deepEqual(attempts(receiver, 'private-good'), [1, 2, 3]);
    const order = receiver.events.all.map(({ channel, data }) => `${channel} ${data}`);
    assert.ok(order.indexOf('private-good 3') < order.indexOf('private-bad 1'), `${order}`);
    const bodies = receiver.requests.all.filter(({ body }) => body.events[0].data === '1' && body.events[0].channel === 'private-bad');
    assert.equal(new Set(bodies.map(({ rawBody }) => rawBody)).size, 1, 'a retry is the same request');
    await until(server, 'outpour_webhook_events_queued', (value) => value === 0);
    assert.equal(await metric(server, 'outpour_webhooks_failed_total'), 3);
    assert.equal(await metric(server, 'outpour_webhooks_retried_total'), 3);
    assert.equal(await metric(server, 'outpour_webhooks_sent_total'), 6);
    assert.equal(await metric(server, 'outpour_webhook_events_dropped_total'), 0);
  });

  test('one that hangs is asked again after its time, and other channels go on', async () => {
    let hangs = 2;
    const receiver = await receiverThat(({ body }) => (body.events[0].channel === 'private-bad' && hangs-- > 0 ? null : 200));
    const server = await serverWith([{ url: receiver.url, events: 'client_event' }], SETTINGS);
    const [bad, good] = await talking(server, ['private-bad', 'private-good']);
    bad.trigger('client-n', 1);
    bad.trigger('client-n', 2);
    good.trigger('client-n', 1);
    await receiver.events.first(3);
    assert.deepEqual(attempts(receiver, 'private-bad'), [1, 1, 1, 2]);
    assert.equal(receiver.events.all[0].channel, 'private-good');
  });

  test('one that answers late has a bounded number of requests at a time', async () => {
    const receiver = await receiverThat(() => new Promise((resolve) => setTimeout(resolve, 30, 200)));
    const server = await serverWith([{ url: receiver.url, events: 'channel_occupied' }], `${SETTINGS}\nwebhook_connections_max = 3`);
    const raw = await Raw.connect(server);
    opened.push(() => raw.end());
    for (let index = 0; index < 30; index += 1) raw.send({ event: 'pusher:subscribe', data: { channel: `late-${index}` } });
    await receiver.events.first(30);
    assert.equal(new Set(receiver.events.all.map(({ channel }) => channel)).size, 30);
    assert.equal(receiver.most, 3);
  });

  test('one that never answers holds up neither another webhook nor the server, and its queue is bounded', async () => {
    const hanging = await receiverThat(() => null);
    const receiver = await receiverThat();
    const server = await serverWith(
      [{ url: hanging.url }, { url: receiver.url }],
      `${SETTINGS}\nwebhook_queue_events_max = 10\nwebhook_retry_ms_max = 60000`,
    );
    const raw = await Raw.connect(server);
    opened.push(() => raw.end());
    // In steps that the webhook which answers keeps up with.
    for (let index = 0; index < 40; index += 1) {
      raw.send({ event: 'pusher:subscribe', data: { channel: `many-${index}` } });
      await receiver.events.first(index + 1);
    }
    assert.equal(await until(server, 'outpour_webhook_events_dropped_total', (value) => value === 30), 30);
    assert.equal(await metric(server, 'outpour_webhook_events_queued'), 10);
    await library(server).trigger('many-1', 'greeting', {});
    await raw.frames.find(({ event }) => event === 'greeting', 'the event');
  });

  test('an event that fails for too long is given up, and the next one is sent', async () => {
    const receiver = await receiverThat(({ body }) => (body.events[0].data === '1' ? 503 : 200));
    const server = await serverWith([{ url: receiver.url, events: 'client_event' }], `${SETTINGS}\nwebhook_retry_ms_max = 400`);
    const [channel] = await talking(server, ['private-bad']);
    channel.trigger('client-n', 1);
    channel.trigger('client-n', 2);
    await receiver.events.first(1);
    const tries = attempts(receiver, 'private-bad');
    assert.equal(tries.at(-1), 2);
    assert.ok(tries.length >= 4, `${tries}`);
    assert.equal(await until(server, 'outpour_webhook_events_dropped_total', (value) => value === 1), 1);
  });
});

test('a drain delivers what is left, departures included, and ends in time', async () => {
  const receiver = await receiverThat(() => new Promise((resolve) => setTimeout(resolve, 50, 200)));
  const server = await serverWith([{ url: receiver.url }], 'webhook_return_ms = 60000\ndrain_ms = 100');
  const made = client(server);
  await subscribed(made, 'one');
  await subscribed(made, 'two');
  await receiver.events.first(2);
  const outcome = await server.stop('SIGTERM');
  assert.equal(outcome.code, 0);
  const told = receiver.events.all.map(({ name, channel }) => `${name} ${channel}`);
  assert.deepEqual(told.slice(2).sort(), ['channel_vacated one', 'channel_vacated two']);
});

test('https is spoken, with the certificates that the machine trusts', async () => {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'outpour-webhooks-'));
  opened.push(() => rmSync(directory, { recursive: true }));
  const file = (name) => path.join(directory, name);
  const certificate = (name, ...words) => execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`), '-days', '2', '-subj', `/CN=${name}`, ...words], { stdio: 'pipe' });
  const issued = (name, by) => certificate(name, '-CA', file(`${by}.pem`), '-CAkey', file(`${by}.key`), '-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=critical,CA:FALSE');
  const tls = (name) => ({ key: readFileSync(file(`${name}.key`)), cert: readFileSync(file(`${name}.pem`)) });
  certificate('authority');
  certificate('impostor');
  issued('trusted', 'authority');
  issued('stranger', 'impostor');
  const trusted = await receiverThat(() => 200, tls('trusted'));
  const stranger = await receiverThat(() => 200, tls('stranger'));
  process.env.SSL_CERT_FILE = file('authority.pem');
  const server = await serverWith([{ url: trusted.url }, { url: stranger.url }]).finally(() => delete process.env.SSL_CERT_FILE);
  await subscribed(client(server), 'secure');
  const event = await trusted.events.find(named('channel_occupied', 'secure'), 'the occupied channel');
  assert.ok(Receiver.checked(event.request).isValid());
  await until(server, 'outpour_webhooks_failed_total', (value) => value > 0);
  assert.equal(stranger.requests.length, 0);
});
