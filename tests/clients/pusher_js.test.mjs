// pusher-js in node, fed by the npm `pusher` server library: what an application sees of a channel.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { Arrivals, within } from './bounded.mjs';
import { authorizer, complaint, events, library, pusherJs, subscribed } from './clients.mjs';
import { group, keep, mark } from './group.mjs';
import { APP, DRAIN_MS } from './server.mjs';

describe('channels', () => {
  const made = group({ shards: 2 });

  test('a connection has a socket id that every server library accepts', async () => {
    const client = await made.join();
    assert.match(client.connection.socket_id, /^\d+\.\d+$/);
    const raw = await made.raw();
    assert.match(raw.socketId, /^\d+\.\d+$/);
    assert.ok(raw.activityTimeout > 0, `activity_timeout ${raw.activityTimeout}`);
    assert.notEqual(raw.socketId, client.connection.socket_id);
  });

  test('a public channel delivers what is published', async () => {
    const channel = await subscribed(await made.join(), 'room');
    await made.back.trigger('room', 'hello', { text: 'hi', number: 1.5, list: [1, null, true] });
    await made.back.trigger('another-room', 'hello', { text: 'not for us' });
    assert.deepEqual(await mark(made.back, channel), [['hello', { text: 'hi', number: 1.5, list: [1, null, true] }]]);
  });

  test('one call publishes to several channels', async () => {
    const client = await made.join();
    const channels = [await subscribed(client, 'several-a'), await subscribed(client, 'several-b'), await subscribed(client, 'several-c')];
    await made.back.trigger(channels.map(({ name }) => name), 'hello', { n: 1 });
    for (const channel of channels) assert.deepEqual(await mark(made.back, channel), [['hello', { n: 1 }]]);
  });

  test('one call publishes to a hundred channels', async () => {
    const client = await made.join();
    const names = Array.from({ length: 100 }, (_, n) => `hundred-${n}`);
    const channels = await Promise.all(names.map((name) => subscribed(client, name)));
    await made.back.trigger(names, 'hello', {});
    for (const channel of channels) await channel.arrivals.find(([event]) => event === 'hello', `the event of ${channel.name}`);
  });

  test('a batch of ten arrives in the order of the batch', async () => {
    const client = await made.join();
    const [a, b] = [await subscribed(client, 'batch-a'), await subscribed(client, 'batch-b')];
    const batch = Array.from({ length: 10 }, (_, n) => ({ channel: n % 2 ? 'batch-b' : 'batch-a', name: 'step', data: { n } }));
    await made.back.triggerBatch(batch);
    assert.deepEqual((await mark(made.back, a)).map(([, { n }]) => n), [0, 2, 4, 6, 8]);
    assert.deepEqual((await mark(made.back, b)).map(([, { n }]) => n), [1, 3, 5, 7, 9]);
  });

  test('names may use every allowed character', async () => {
    const name = 'Az09_-=@,.;';
    const channel = await subscribed(await made.join(), name);
    await made.back.trigger(name, 'App\\Events\\Größe "quoted" 🚀', 'plain');
    assert.deepEqual(await mark(made.back, channel), [['App\\Events\\Größe "quoted" 🚀', 'plain']]);
  });

  const payloads = {
    unicode: { text: 'Grüße, 世界, 🚀👩‍👩‍👧, \u0000\u001f\u2028\u2029 "\\/\b\f\n\r\t' },
    'an empty string': '',
    'a string that is not JSON': 'just text',
    'a string of digits': '007x',
    'a large number': { id: '9007199254740993' },
    'nested escapes': JSON.stringify(JSON.stringify({ a: '"\\' })),
    '10 KB': { blob: 'x'.repeat(10_240 - '{"blob":""}'.length) },
    '10 KB of quotes': '"'.repeat(5_000),
  };
  for (const [what, data] of Object.entries(payloads)) {
    test(`data arrives as it was sent: ${what}`, async () => {
      const name = `payload-${what.replace(/[^a-z0-9]/gi, '-')}`;
      const raw = await made.raw();
      raw.send({ event: 'pusher:subscribe', data: { channel: name } });
      await raw.frames.first(2);
      await made.back.trigger(name, 'payload', data);
      const [, , frame] = await raw.frames.first(3);
      const published = typeof data === 'string' ? data : JSON.stringify(data);
      assert.deepEqual({ event: frame.event, channel: frame.channel, data: frame.data }, { event: 'payload', channel: name, data: published });
    });
  }

  test('a private channel delivers to those whom the back end authorised', async () => {
    const channel = await subscribed(await made.join(), 'private-room');
    await made.back.trigger('private-room', 'secret', { n: 1 });
    assert.deepEqual(await mark(made.back, channel), [['secret', { n: 1 }]]);
  });

  test('channel_data of a private channel is part of what is signed', async () => {
    const raw = await made.raw();
    const answer = made.back.authorizeChannel(raw.socketId, 'private-with-data', { user_id: '7' });
    raw.send({ event: 'pusher:subscribe', data: { channel: 'private-with-data', ...answer } });
    const [, succeeded] = await raw.frames.first(2);
    assert.equal(succeeded.event, 'pusher_internal:subscription_succeeded', succeeded.text);
    assert.equal(succeeded.channel, 'private-with-data');
  });

  test('an encrypted channel is opaque to the server and readable for the client', async () => {
    const back = made.library({ encryptionMasterKeyBase64: randomBytes(32).toString('base64') });
    const client = await made.join({ channelAuthorization: authorizer(back) });
    const channel = await subscribed(client, 'private-encrypted-room');
    const raw = await made.raw();
    const { auth } = back.authorizeChannel(raw.socketId, 'private-encrypted-room');
    raw.send({ event: 'pusher:subscribe', data: { channel: 'private-encrypted-room', auth } });
    await raw.frames.first(2);
    await back.trigger('private-encrypted-room', 'secret', { text: 'Grüße' });
    assert.deepEqual(await mark(back, channel), [['secret', { text: 'Grüße' }]]);
    const [, , relayed] = await raw.frames.first(3);
    assert.deepEqual(Object.keys(JSON.parse(relayed.data)).sort(), ['ciphertext', 'nonce']);
    // Base64 may hold any few letters, but neither an umlaut nor an escape of one.
    assert.doesNotMatch(relayed.text, /Grüße|Gr\\u00fc/i);
  });

  test('the subscriber named by socket_id is left out, and gets what comes after', async () => {
    const [sender, other] = [await made.join(), await made.join()];
    const [left, right] = [await subscribed(sender, 'exclude'), await subscribed(other, 'exclude')];
    await made.back.trigger('exclude', 'first', { n: 1 });
    await made.back.trigger('exclude', 'second', { n: 2 }, { socket_id: sender.connection.socket_id });
    await made.back.triggerBatch([{ channel: 'exclude', name: 'third', data: { n: 3 }, socket_id: sender.connection.socket_id }]);
    await made.back.trigger('exclude', 'fourth', { n: 4 });
    assert.deepEqual((await mark(made.back, left)).map(([name]) => name), ['first', 'fourth']);
    assert.deepEqual((await mark(made.back, right)).map(([name]) => name), ['first', 'second', 'third', 'fourth']);
  });

  test('exclusion holds while hundreds of events are coalesced', async () => {
    const [sender, other] = [await made.join(), await made.join()];
    const [left, right] = [await subscribed(sender, 'exclude-many'), await subscribed(other, 'exclude-many')];
    const calls = [];
    for (let n = 0; n < 300; n += 1) {
      calls.push(made.back.trigger('exclude-many', 'step', { n }, n % 3 ? {} : { socket_id: sender.connection.socket_id }));
    }
    await within(Promise.all(calls), '300 publishes');
    const [seenLeft, seenRight] = [await mark(made.back, left), await mark(made.back, right)];
    assert.equal(seenRight.length, 300);
    assert.deepEqual(seenLeft, seenRight.filter(([, { n }]) => n % 3));
  });

  test('a socket_id of nobody leaves nobody out', async () => {
    const channel = await subscribed(await made.join(), 'exclude-nobody');
    await made.back.trigger('exclude-nobody', 'hello', {}, { socket_id: '1.1' });
    assert.deepEqual(await mark(made.back, channel), [['hello', {}]]);
  });

  test('unsubscribing stops the events, and subscribing again starts them', async () => {
    const client = await made.join();
    const [left, witness] = [await subscribed(client, 'leave'), await subscribed(await made.join(), 'leave')];
    await made.back.trigger('leave', 'before', {});
    await mark(made.back, left);
    client.unsubscribe('leave');
    // The same socket carries both, in order: when this is answered the server has read the unsubscribe.
    await subscribed(client, 'leave-fence');
    await made.back.trigger('leave', 'while', {});
    assert.deepEqual((await mark(made.back, witness)).map(([name]) => name), ['before', 'while']);
    const again = await subscribed(client, 'leave');
    await made.back.trigger('leave', 'after', {});
    assert.deepEqual((await mark(made.back, again)).map(([name]) => name), ['after']);
    assert.deepEqual(events(left).filter(([name]) => name === 'while'), []);
  });

  test('a second subscription to a channel is refused, and changes nothing', async () => {
    const raw = await made.raw();
    const subscribe = { event: 'pusher:subscribe', data: { channel: 'twice' } };
    raw.send(subscribe);
    const [, succeeded] = await raw.frames.first(2);
    assert.equal(succeeded.event, 'pusher_internal:subscription_succeeded', succeeded.text);
    raw.send(subscribe);
    const [, , refused] = await raw.frames.first(3);
    assert.equal(refused.event, 'pusher:error', refused.text);
    assert.equal(refused.data.code, null, refused.text);
    assert.match(refused.data.message, /^Existing subscription to channel twice/);
    await made.back.trigger('twice', 'once', {});
    await raw.frames.find(({ event }) => event === 'once', 'the event');
    assert.equal((await raw.settled()).filter(({ event }) => event === 'once').length, 1);
  });

  test('two subscriptions sent at once have one success and one refusal', async () => {
    for (let n = 0; n < 8; n += 1) {
      const raw = await made.raw();
      const subscribe = { event: 'pusher:subscribe', data: { channel: `at-once-${n}` } };
      raw.send(subscribe);
      raw.send(subscribe);
      const answers = (await raw.frames.first(3)).slice(1).map(({ event }) => event);
      assert.deepEqual(answers.sort(), ['pusher:error', 'pusher_internal:subscription_succeeded']);
      await made.back.trigger(`at-once-${n}`, 'once', {});
      await raw.frames.find(({ event }) => event === 'once', 'the event');
      assert.equal((await raw.settled()).filter(({ event }) => event === 'once').length, 1);
    }
  });

  test('subscription_succeeded has the channel and an empty object as a string', async () => {
    const raw = await made.raw();
    raw.send({ event: 'pusher:subscribe', data: { channel: 'shape', auth: '', channel_data: null } });
    const [, { text }] = await raw.frames.first(2);
    assert.deepEqual(JSON.parse(text), { event: 'pusher_internal:subscription_succeeded', channel: 'shape', data: '{}' });
  });

  test('data of a command may be an object or a string of JSON', async () => {
    const raw = await made.raw();
    raw.send({ event: 'pusher:ping', data: '{}' });
    const [, pong] = await raw.frames.first(2);
    assert.deepEqual(JSON.parse(pong.text), { event: 'pusher:pong', data: {} });
    raw.send({ event: 'pusher:subscribe', data: '{"channel":"from-a-string"}' });
    const [, , succeeded] = await raw.frames.first(3);
    assert.equal(succeeded.event, 'pusher_internal:subscription_succeeded', succeeded.text);
    raw.send({ event: 'pusher:ping' });
    await raw.frames.find(({ event }) => event === 'pusher:pong', 'a pong to a ping without data', undefined, 3);
  });

  const nonsense = ['', 'not json', '[]', '42', 'null', '{}', '{"event":7}', '{"event":"pusher:subscribe"}', '{"event":"pusher:subscribe","data":{}}', '{"event":"pusher:unknown","data":{}}'];
  for (const message of nonsense) {
    test(`a message that means nothing does not end the connection: ${message || 'empty'}`, async () => {
      const raw = await made.raw();
      raw.send(message);
      await raw.settled();
      assert.ok(raw.frames.all.slice(1).every(({ event }) => event === 'pusher:error' || event === 'pusher:pong'), JSON.stringify(raw.frames.all));
    });
  }

  test('a refused signature is a subscription error of type AuthError with status 401', async () => {
    const stranger = made.library({ secret: 'wrong-secret' });
    const client = await made.join({ channelAuthorization: authorizer(stranger) });
    await assert.rejects(subscribed(client, 'private-forged'), (error) => {
      const [, json] = /^subscribing to private-forged: pusher:subscription_error (.*)$/s.exec(error.message) ?? assert.fail(error.message);
      const { type, status } = JSON.parse(json);
      assert.deepEqual({ type, status }, { type: 'AuthError', status: 401 });
      return true;
    });
    assert.equal(client.connection.state, 'connected');
  });

  test('a private channel without auth, with another key or for another socket is refused', async () => {
    const raw = await made.raw();
    const right = made.back.authorizeChannel(raw.socketId, 'private-guarded').auth;
    const forgeries = [undefined, '', 'x', right.slice(0, -1), right.replace(APP.key, 'other-key'), `${right}0`, made.back.authorizeChannel('1.1', 'private-guarded').auth];
    for (const [index, auth] of forgeries.entries()) {
      raw.send({ event: 'pusher:subscribe', data: { channel: 'private-guarded', auth } });
      const answer = (await raw.frames.first(index + 2)).at(-1);
      assert.equal(answer.event, 'pusher:subscription_error', `auth ${auth}: ${answer.text}`);
      assert.equal(answer.channel, 'private-guarded');
      const data = typeof answer.data === 'string' ? JSON.parse(answer.data) : answer.data;
      assert.deepEqual([data.type, data.status], ['AuthError', 401], answer.text);
    }
    raw.send({ event: 'pusher:subscribe', data: { channel: 'private-guarded', auth: right } });
    const answer = (await raw.frames.first(forgeries.length + 2)).at(-1);
    assert.equal(answer.event, 'pusher_internal:subscription_succeeded', answer.text);
  });

  for (const name of ['', 'with space', 'slash/ed', 'ünicode', 'x'.repeat(201), '#reserved']) {
    test(`a channel that cannot be is refused: ${name.slice(0, 20) || 'empty'}`, async () => {
      const raw = await made.raw();
      raw.send({ event: 'pusher:subscribe', data: { channel: name } });
      const [, answer] = await raw.frames.first(2);
      assert.match(answer.event, /^pusher:(subscription_)?error$/, answer.text);
      await raw.settled();
    });
  }
});

describe('client events', () => {
  const made = group({ shards: 2 });

  /** Two members of a private channel on their own connections. */
  async function pair(name) {
    return Promise.all([made.join(), made.join()].map(async (client) => subscribed(await client, name)));
  }

  async function refusal(client) {
    const error = await client.errors.find(() => true, 'an error');
    assert.equal(client.connection.state, 'connected');
    return complaint(error);
  }

  test('reach the others and not the sender', async () => {
    const [left, right] = await pair('private-chat');
    assert.equal(left.trigger('client-typing', { at: 1 }), true);
    await right.arrivals.find(([name]) => name === 'client-typing', 'the client event');
    right.trigger('client-typing', { at: 2 });
    await left.arrivals.find(([name]) => name === 'client-typing', 'the client event');
    assert.deepEqual(await mark(made.back, left), [['client-typing', { at: 2 }]]);
    assert.deepEqual(await mark(made.back, right), [['client-typing', { at: 1 }]]);
  });

  for (const [what, data] of Object.entries({ object: { a: [1, 'ü'] }, string: 'text', number: 7, null: null, absent: undefined })) {
    test(`carry data as it came: ${what}`, async () => {
      const [left, right] = [await made.raw(), await made.raw()];
      for (const raw of [left, right]) {
        raw.send({ event: 'pusher:subscribe', data: { channel: 'private-any', ...made.back.authorizeChannel(raw.socketId, 'private-any') } });
        await raw.frames.first(2);
      }
      left.send({ event: 'client-any', channel: 'private-any', data });
      const [, , frame] = await right.frames.first(3);
      assert.equal(frame.event, 'client-any', frame.text);
      assert.equal(frame.channel, 'private-any');
      assert.deepEqual(frame.data ?? null, data ?? null);
      assert.ok(!('user_id' in frame), frame.text);
    });
  }

  const refusals = [
    ['on a public channel', 'public-chat', 'client-x', /only supported on private and presence channels/],
    ['without the prefix', 'private-chat', 'typing', /must be prefixed by 'client-'/],
  ];
  for (const [what, name, event, message] of refusals) {
    test(`are refused ${what}`, async () => {
      const [client, other] = [await made.join(), await made.join()];
      await subscribed(client, name);
      const witness = await subscribed(other, name);
      client.send_event(event, { a: 1 }, name);
      assert.match((await refusal(client)).message, message);
      assert.deepEqual(await mark(made.back, witness), []);
    });
  }

  test('are refused from one who is not subscribed', async () => {
    const [client, other] = [await made.join(), await made.join()];
    const witness = await subscribed(other, 'private-foreign');
    client.send_event('client-x', { a: 1 }, 'private-foreign');
    assert.match((await refusal(client)).message, /not subscribed to channel private-foreign/);
    assert.deepEqual(await mark(made.back, witness), []);
  });

  test('a refusal names the channel and code 4301', async () => {
    const raw = await made.raw();
    raw.send({ event: 'client-x', channel: 'private-foreign', data: {} });
    const [, refused] = await raw.frames.first(2);
    assert.equal(refused.event, 'pusher:error', refused.text);
    assert.equal(refused.channel, 'private-foreign', refused.text);
    assert.equal(refused.data.code, 4301, refused.text);
  });

  test('of more than 10 KB are refused', async () => {
    const [left, right] = await pair('private-large');
    left.trigger('client-large', { blob: 'x'.repeat(10_300) });
    await refusal(left.pusher);
    assert.deepEqual(await mark(made.back, right), []);
  });

  test('beyond ten a second are refused with 4301, and each is either delivered or refused', async () => {
    const [left, right] = await pair('private-flood');
    const sent = 40;
    for (let n = 0; n < sent; n += 1) left.trigger('client-flood', { n });
    const errors = left.pusher.errors;
    const delivered = () => events(right).filter(([name]) => name === 'client-flood');
    // Two streams, one sum: wait on each as it moves.
    const both = new Arrivals('outcomes of the flood');
    for (const list of [errors, right.arrivals]) {
      const add = list.add.bind(list);
      list.add = (thing) => (add(thing), both.add(thing));
    }
    await both.until(() => errors.length + delivered().length >= sent, () => `${sent} outcomes, got ${errors.length} refused and ${delivered().length} delivered`);
    assert.equal(errors.length + delivered().length, sent);
    assert.ok(delivered().length >= 10 && delivered().length <= 20, `${delivered().length} delivered`);
    assert.deepEqual(delivered().map(([, { n }]) => n).slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for (const error of errors.all) assert.equal(complaint(error).code, 4301, JSON.stringify(error));
    assert.equal(left.pusher.connection.state, 'connected');
  });
});

describe('an application with client events off', () => {
  const made = group({ clientEvents: false });

  test('refuses them and says where to enable them', async () => {
    const [left, right] = [await subscribed(await made.join(), 'private-quiet'), await subscribed(await made.join(), 'private-quiet')];
    left.trigger('client-x', {});
    assert.match(complaint(await left.pusher.errors.find(() => true, 'an error')).message, /To send client events, you must enable this feature/);
    assert.deepEqual(await mark(made.back, right), []);
  });
});

describe('several applications', () => {
  const app = (id, more = '') => `[[apps]]\nid = "${id}"\nkey = "key-${id}"\nsecret = "secret-${id}"\n${more}\n`;
  const made = group({ shards: 2, config: app('1001') + app('1002', 'client_events = true') + app('1003', 'enabled = false') });
  const libraryOf = (id) => made.library({ appId: id, key: `key-${id}`, secret: `secret-${id}` });
  const joined = async (id) => {
    const client = keep(made.clients, pusherJs(made.server, { channelAuthorization: authorizer(libraryOf(id)) }, `key-${id}`));
    await client.states.find((state) => state === 'connected', 'connected');
    return client;
  };

  test('do not hear each other on a channel of the same name', async () => {
    const [one, two] = [await subscribed(await joined('1001'), 'shared'), await subscribed(await joined('1002'), 'shared')];
    const [backOne, backTwo] = [libraryOf('1001'), libraryOf('1002')];
    await backOne.trigger('shared', 'from-one', {});
    await backTwo.trigger('shared', 'from-two', {});
    assert.deepEqual(await mark(backOne, one), [['from-one', {}]]);
    assert.deepEqual(await mark(backTwo, two), [['from-two', {}]]);
  });

  test('do not accept each other\'s signatures', async () => {
    const crossed = made.library({ appId: '1001', key: 'key-1002', secret: 'secret-1002' });
    await assert.rejects(crossed.trigger('shared', 'crossed', {}), (error) => assert.equal(error.status, 401) ?? true);
    const client = keep(made.clients, pusherJs(made.server, { channelAuthorization: authorizer(libraryOf('1002')) }, 'key-1001'));
    await assert.rejects(subscribed(client, 'private-shared'), /pusher:subscription_error .*AuthError/);
  });

  test('have client events by their own setting', async () => {
    for (const [id, allowed] of [['1001', false], ['1002', true]]) {
      const [left, right] = [await subscribed(await joined(id), 'private-pair'), await subscribed(await joined(id), 'private-pair')];
      left.trigger('client-x', {});
      if (!allowed) await left.pusher.errors.find(() => true, 'an error');
      else await right.arrivals.find(([name]) => name === 'client-x', 'the client event');
      assert.deepEqual(await mark(libraryOf(id), right), allowed ? [['client-x', {}]] : []);
    }
  });

  test('one that is disabled refuses connections with 4003 and publishes with 403', async () => {
    assert.equal((await made.rawAt('/app/key-1003?protocol=7').closed()).code, 4003);
    await assert.rejects(libraryOf('1003').trigger('shared', 'x', {}), (error) => assert.equal(error.status, 403) ?? true);
  });
});

for (const shards of [1, 2, 4]) {
  describe(`order with ${shards} shards`, () => {
    const made = group({ shards });

    test('a thousand events reach every subscriber once and in order, whenever it came', async () => {
      const count = 1_000;
      const early = await Promise.all(Array.from({ length: 6 }, async () => subscribed(await made.join(), 'ordered')));
      const publishing = (async () => {
        for (let n = 0; n < count; n += 1) await made.back.trigger('ordered', 'step', { n });
      })();
      const late = [];
      for (let n = 0; n < 4; n += 1) {
        await early[0].arrivals.first((n + 1) * 100);
        late.push(await subscribed(await made.join(), 'ordered'));
      }
      await within(publishing, `${count} publishes`, 60_000);
      const numbers = async (channel) => (await mark(made.back, channel)).map(([, { n }]) => n);
      for (const channel of early) assert.deepEqual(await numbers(channel), Array.from({ length: count }, (_, n) => n));
      for (const channel of late) {
        assert.equal(channel.arrivals.all[0][0], 'pusher:subscription_succeeded');
        const seen = await numbers(channel);
        assert.ok(seen.length > 0 && seen[0] > 0, `a late subscriber saw ${seen.length}, from ${seen[0]}`);
        assert.deepEqual(seen, Array.from({ length: count - seen[0] }, (_, n) => seen[0] + n));
      }
    });

    test('several publishers on several channels: all subscribers of a channel see one order', async () => {
      const [names, publishers, rounds] = [['many-a', 'many-b', 'many-c'], 4, 60];
      const clients = await Promise.all(Array.from({ length: 6 }, () => made.join()));
      const channels = await Promise.all(clients.map((client) => Promise.all(names.map((name) => subscribed(client, name)))));
      const publish = async (publisher) => {
        const back = made.library({ keepAlive: publisher % 2 === 0 });
        for (let n = 0; n < rounds; n += 1) {
          if (publisher === 1) await back.triggerBatch(names.map((channel) => ({ channel, name: 'step', data: { publisher, n } })));
          else if (publisher === 2) await back.trigger(names, 'step', { publisher, n });
          else await Promise.all(names.map((name) => back.trigger(name, 'step', { publisher, n })));
        }
      };
      await within(Promise.all(Array.from({ length: publishers }, (_, publisher) => publish(publisher))), 'all publishers', 60_000);
      for (const [index, name] of names.entries()) {
        const seen = [];
        for (const client of channels) seen.push((await mark(made.back, client[index])).map(([, { publisher, n }]) => `${publisher}:${n}`));
        assert.equal(seen[0].length, publishers * rounds, `events of ${name}`);
        for (const other of seen.slice(1)) assert.deepEqual(other, seen[0], `two subscribers of ${name} saw different orders`);
        for (let publisher = 0; publisher < publishers; publisher += 1) {
          const own = seen[0].filter((step) => step.startsWith(`${publisher}:`));
          assert.deepEqual(own, Array.from({ length: rounds }, (_, n) => `${publisher}:${n}`), `publisher ${publisher} on ${name}`);
        }
      }
    });

    test('client events from several members keep each sender\'s order', async () => {
      const members = await Promise.all(Array.from({ length: 4 }, async () => subscribed(await made.join(), 'private-members')));
      for (let n = 0; n < 8; n += 1) for (const [member, channel] of members.entries()) channel.trigger('client-step', { member, n });
      for (const [self, channel] of members.entries()) {
        await channel.arrivals.first(1 + 3 * 8);
        const seen = await mark(made.back, channel);
        assert.equal(seen.length, 3 * 8, `member ${self}`);
        for (const member of members.keys()) {
          const own = seen.filter(([, data]) => data.member === member).map(([, { n }]) => n);
          assert.deepEqual(own, member === self ? [] : [0, 1, 2, 3, 4, 5, 6, 7]);
        }
      }
    });
  });
}

describe('a connection that is refused', () => {
  const made = group({});

  const refusals = [
    ['an unknown key', '/app/nobody?protocol=7&client=js&version=8.6.0&flash=false', 4001],
    ['protocol 3', `/app/${APP.key}?protocol=3`, 4007],
    ['protocol 99', `/app/${APP.key}?protocol=99`, 4007],
    ['protocol abc', `/app/${APP.key}?protocol=abc`, 4006],
    ['no protocol', `/app/${APP.key}`, 4008],
  ];
  for (const [what, path, code] of refusals) {
    test(`${what}: upgraded, told why, closed with ${code}`, async () => {
      const raw = made.rawAt(path);
      const closed = await raw.closed();
      assert.equal(closed.code, code, JSON.stringify(closed) + JSON.stringify(raw.frames.all));
      assert.notEqual(closed.reason, '');
      assert.equal(raw.frames.length, 1);
      assert.equal(raw.frames.all[0].event, 'pusher:error');
      assert.equal(raw.frames.all[0].data.code, code);
    });
  }

  test('pusher-js gives up on an unknown key', async () => {
    const client = pusherJs(made.server, {}, 'nobody');
    made.clients.push(client);
    await client.states.find((state) => state === 'failed' || state === 'disconnected', 'given up');
    assert.ok(!client.states.all.includes('connected'));
    assert.ok(client.errors.all.some((error) => complaint(error).code === 4001), JSON.stringify(client.errors.all));
  });

  for (const query of ['protocol=5', 'protocol=6', 'protocol=7&unknown=x&client=%F0%9F%9A%80']) {
    test(`${query} is served`, async () => {
      await made.raw(query);
    });
  }
});

describe('the end of a server', () => {
  const made = group({ shards: 2 });

  for (const signal of ['SIGKILL', 'SIGTERM']) {
    test(`after ${signal} and a restart pusher-js is back with its channels`, async () => {
      const client = await made.join();
      const [room, secret] = [await subscribed(client, 'survivor'), await subscribed(client, 'private-survivor')];
      const before = client.connection.socket_id;
      const [from, answers] = [client.states.length, room.arrivals.length];
      const end = await made.server.stop(signal);
      if (signal !== 'SIGKILL') assert.deepEqual([end.code, end.signal], [0, null], made.server.output);
      await made.server.start();
      await client.states.find((state) => state === 'connected', 'connected again', 60_000, from);
      for (const channel of [room, secret]) await channel.arrivals.find(([name]) => name === 'pusher:subscription_succeeded', 'the second answer', undefined, answers);
      assert.notEqual(client.connection.socket_id, before);
      await made.back.trigger(['survivor', 'private-survivor'], 'again', {});
      await made.back.trigger(['survivor', 'private-survivor'], 'last', {});
      for (const channel of [room, secret]) {
        await channel.arrivals.find(([name]) => name === 'last', 'the event after the restart');
        assert.deepEqual(events(channel).map(([name]) => name), ['again', 'last']);
      }
      client.disconnect();
    });
  }

  for (const signal of ['SIGTERM', 'SIGINT']) {
    test(`${signal} tells every client 4200, ends in time with code 0, and refuses newcomers`, async () => {
      const raws = await Promise.all(Array.from({ length: 50 }, () => made.raw()));
      const closes = Promise.all(raws.map((raw) => raw.closed(DRAIN_MS)));
      const end = await made.server.stop(signal);
      assert.deepEqual([end.code, end.signal], [0, null], made.server.output);
      for (const { code } of await closes) assert.equal(code, 4200);
      const late = made.rawAt(`/app/${APP.key}?protocol=7`);
      assert.equal((await late.closed()).code, 1006);
    });
  }

  test('what was accepted before SIGTERM is delivered before the close', async () => {
    const raw = await made.raw();
    raw.send({ event: 'pusher:subscribe', data: { channel: 'last-words' } });
    await raw.frames.first(2);
    let accepted = 0;
    const publishing = (async () => {
      for (;;) {
        await made.back.trigger('last-words', 'word', { n: accepted });
        accepted += 1;
      }
    })().catch(() => {});
    await raw.frames.first(50);
    const end = await made.server.stop('SIGTERM');
    await within(publishing, 'the publisher to notice the end');
    assert.equal(end.code, 0, made.server.output);
    assert.equal((await raw.closed()).code, 4200);
    const words = raw.frames.all.filter(({ event }) => event === 'word').map(({ data }) => JSON.parse(data).n);
    assert.deepEqual(words, words.map((_, n) => n));
    // One publish may have been accepted while its answer was lost; none that was answered before the close may be missing.
    assert.ok(words.length >= accepted, `${accepted} publishes were answered with 200, ${words.length} were delivered`);
  });

  test('a second signal ends it at once', async () => {
    await Promise.all(Array.from({ length: 20 }, () => made.raw()));
    made.server.child.kill('SIGTERM');
    // A signal that comes while the same one is pending is none: the first has to have been taken.
    await made.server.says('draining');
    const end = await made.server.stop('SIGTERM', 5_000);
    assert.equal(end.signal === null || end.signal === 'SIGTERM', true, JSON.stringify(end));
  });
});

describe('liveness', () => {
  const made = group({ activityTimeout: 2 });

  test('the handshake states the timeout that was configured', async () => {
    assert.equal((await made.raw()).activityTimeout, 2);
  });

  test('pusher-js pings an idle connection and keeps it', async () => {
    const client = await made.join();
    const channel = await subscribed(client, 'idle');
    const id = client.connection.socket_id;
    const pongs = new Arrivals('pongs');
    client.connection.bind('message', ({ event }) => event === 'pusher:pong' && pongs.add(event));
    await pongs.first(3);
    assert.equal(client.connection.state, 'connected');
    assert.equal(client.connection.socket_id, id);
    await made.back.trigger('idle', 'hello', {});
    assert.deepEqual(await mark(made.back, channel), [['hello', {}]]);
  });

  test('a WebSocket ping is answered with its payload', async () => {
    const raw = await made.raw();
    const pong = new Promise((resolve) => raw.socket.once('pong', resolve));
    raw.socket.ping('are you there');
    assert.equal((await within(pong, 'a pong')).toString(), 'are you there');
  });
});
