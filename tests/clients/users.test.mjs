// Signed-in users: what is sent to them, whom they watch, and how their connections end.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { describe, test } from 'node:test';
import { Arrivals, within } from './bounded.mjs';
import { authorizer, complaint, pusherJs, subscribed } from './clients.mjs';
import { group, keep } from './group.mjs';
import { Seat, signed } from './roster.mjs';
import { APP } from './server.mjs';

const own = (id) => `#server-to-user-${id}`;

/** The fields of a sign-in, signed by hand; `userData` is the text itself. */
function signature(raw, userData) {
  return { auth: `${APP.key}:${createHmac('sha256', APP.secret).update(`${raw.socketId}::user::${userData}`).digest('hex')}`, user_data: userData };
}

/** Adds to a group what has to do with users. */
function users(made) {
  /** A raw client that is signed in as `user`: {id, user_info, watchlist}. */
  made.signedIn = async (user) => {
    const raw = await made.raw();
    const text = JSON.stringify(user);
    raw.send({ event: 'pusher:signin', data: signature(raw, text) });
    const answer = await raw.frames.find(({ event }) => event === 'pusher:signin_success', `signed in as ${text}`);
    assert.deepEqual(JSON.parse(answer.text), { event: 'pusher:signin_success', data: { user_data: text } });
    return raw;
  };
  /** A pusher-js client that is signed in; `user.arrivals` has what comes to its user, `user.watched` what it watches. */
  made.joinAs = async (user) => {
    const userAuthentication = { customHandler: ({ socketId }, callback) => callback(null, made.back.authenticateUser(socketId, user)) };
    const client = keep(made.clients, pusherJs(made.server, { channelAuthorization: authorizer(made.back), userAuthentication }));
    client.user.arrivals = new Arrivals(`events of user ${user.id}`);
    client.user.bind_global((event, data) => client.user.arrivals.add([event, data]));
    client.user.watched = new Arrivals(`what ${user.id} watches`);
    client.user.watchlist.bind_global((event, data) => client.user.watched.add([event, data.user_ids]));
    client.signin();
    await within(new Promise((resolve) => client.connection.bind('message', ({ event }) => event === 'pusher:signin_success' && resolve())), 'signed in');
    return client;
  };
  return made;
}

/** What a raw client was told of those whom it watches, as 'online a b'. */
function watched(raw) {
  const told = raw.frames.all.filter(({ event }) => event === 'pusher_internal:watchlist_events');
  return told.flatMap(({ data }) => JSON.parse(data).events.map(({ name, user_ids }) => `${name} ${user_ids.sort().join(' ')}`));
}

for (const shards of [1, 4]) {
  describe(`users with ${shards} shards`, () => {
    const made = users(group({ shards }));

    test('pusher-js signs in, and gets what is sent to its user', async () => {
      const client = await made.joinAs({ id: 'ann', user_info: { name: 'Ann' } });
      assert.deepEqual(client.user.user_data, { id: 'ann', user_info: { name: 'Ann' } });
      await made.back.sendToUser('ann', 'letter', { text: 'Grüße' });
      await made.back.sendToUser('bob', 'letter', { text: 'not for ann' });
      await made.back.sendToUser('ann', 'last', {});
      await client.user.arrivals.find(([event]) => event === 'last', 'the last event');
      assert.deepEqual(client.user.arrivals.all, [['letter', { text: 'Grüße' }], ['last', {}]]);
    });

    test('every connection of a user gets it once, whether or not it subscribed, and nobody else does', async () => {
      const all = await Promise.all(Array.from({ length: 8 }, () => made.signedIn({ id: 'many' })));
      const [other, nobody] = [await made.signedIn({ id: 'many-more' }), await made.raw()];
      for (const raw of all.slice(0, 4)) {
        raw.send({ event: 'pusher:subscribe', data: { auth: '', channel: own('many') } });
        const answer = await raw.frames.find(({ channel }) => channel === own('many'), 'an answer');
        assert.deepEqual(JSON.parse(answer.text), { event: 'pusher_internal:subscription_succeeded', channel: own('many'), data: '{}' });
      }
      await made.back.sendToUser('many', 'hello', { n: 1 });
      for (const raw of all) {
        const frame = await raw.frames.find(({ event }) => event === 'hello', 'the event');
        assert.deepEqual(JSON.parse(frame.text), { event: 'hello', channel: own('many'), data: '{"n":1}' });
      }
      await made.back.sendToUser('many', 'last', {});
      await made.back.sendToUser('many-more', 'last', {});
      for (const raw of all) {
        await raw.frames.find(({ event }) => event === 'last', 'the last event');
        assert.equal(raw.frames.all.filter(({ event }) => event === 'hello').length, 1);
      }
      await other.frames.find(({ event }) => event === 'last', 'the last event');
      for (const raw of [other, nobody]) assert.ok((await raw.settled()).every(({ event }) => event !== 'hello'));
    });

    test('events of a user come in one order, and after the sign-in was answered', async () => {
      let isOver = false;
      let published = 0;
      const publishing = (async () => {
        for (; !isOver; published += 1) await made.back.sendToUser('busy', 'step', published);
      })();
      const all = [];
      for (let n = 0; n < 12; n += 1) all.push(await made.signedIn({ id: 'busy' }));
      for (const raw of all) await raw.frames.first(6);
      isOver = true;
      await publishing;
      await made.back.sendToUser('busy', 'step', published);
      for (const raw of all) {
        await raw.frames.find(({ data }) => data === String(published), 'the last event');
        const steps = raw.frames.all.slice(2).map(({ data }) => Number(data));
        assert.deepEqual(steps, Array.from({ length: published + 1 - steps[0] }, (_, n) => steps[0] + n));
      }
    });

    test('an id may be a number, and is the same user as its digits', async () => {
      const [number, digits] = [await made.signedIn({ id: 42 }), await made.signedIn({ id: '42' })];
      await made.back.sendToUser('42', 'hello', {});
      for (const raw of [number, digits]) await raw.frames.find(({ event, channel }) => event === 'hello' && channel === own('42'), 'the event');
    });

    test('signing in twice as the same user changes nothing', async () => {
      const raw = await made.signedIn({ id: 'same' });
      const text = JSON.stringify({ id: 'same' });
      raw.send({ event: 'pusher:signin', data: signature(raw, text) });
      await raw.frames.until(() => raw.frames.all.filter(({ event }) => event === 'pusher:signin_success').length === 2, 'a second answer');
      await made.back.sendToUser('same', 'hello', {});
      await made.back.sendToUser('same', 'last', {});
      await raw.frames.find(({ event }) => event === 'last', 'the last event');
      assert.equal(raw.frames.all.filter(({ event }) => event === 'hello').length, 1);
    });

    const forgeries = {
      'a signature by another secret': (raw, text) => ({ ...signature(raw, text), auth: `${APP.key}:${'0'.repeat(64)}` }),
      'a signature for another socket': (raw, text) => signature({ socketId: '1.1' }, text),
      'another user than was signed': (raw, text) => ({ ...signature(raw, text), user_data: '{"id":"root"}' }),
      'another key': (raw, text) => ({ ...signature(raw, text), auth: signature(raw, text).auth.replace(APP.key, 'other') }),
      'a user without an id': (raw) => signature(raw, '{}'),
      'a user with an empty id': (raw) => signature(raw, '{"id":""}'),
      'a user that is not JSON': (raw) => signature(raw, 'nonsense'),
    };
    for (const [what, forge] of Object.entries(forgeries)) {
      test(`${what}: told so with 4009, and closed with it`, async () => {
        const raw = await made.raw();
        raw.send({ event: 'pusher:signin', data: forge(raw, '{"id":"ann"}') });
        assert.equal((await raw.closed()).code, 4009);
        const [, error, ...rest] = raw.frames.all;
        assert.deepEqual([error.event, error.data.code, rest], ['pusher:error', 4009, []]);
        assert.equal(typeof error.data.message, 'string');
      });
    }

    test('one who is somebody cannot become somebody else', async () => {
      const raw = await made.signedIn({ id: 'ann' });
      raw.send({ event: 'pusher:signin', data: signature(raw, '{"id":"bob"}') });
      assert.equal((await raw.closed()).code, 4009);
      assert.equal(raw.frames.all.at(-1).data.code, 4009);
    });

    test('the channel of a user is closed to all others, and so is what the server keeps for itself', async () => {
      const [stranger, other] = [await made.raw(), await made.signedIn({ id: 'other' })];
      await made.signedIn({ id: 'private-one' });
      for (const raw of [stranger, other]) {
        for (const name of [own('private-one'), own(''), '#server-to-user', '#watch-private-one', '#anything']) {
          const from = raw.frames.length;
          raw.send({ event: 'pusher:subscribe', data: { auth: '', channel: name } });
          raw.send({ event: 'client-x', channel: name, data: {} });
          await raw.settled();
          const answers = raw.frames.all.slice(from).filter(({ event }) => event !== 'pusher:pong');
          assert.ok(answers.length === 2 && answers.every(({ event }) => event === 'pusher:error' || event === 'pusher:subscription_error'), JSON.stringify(answers));
        }
      }
      await made.back.sendToUser('private-one', 'secret', {});
      await made.back.sendToUser('other', 'last', {});
      await other.frames.find(({ event }) => event === 'last', 'the last event');
      for (const raw of [stranger, other]) assert.ok((await raw.settled()).every(({ event }) => event !== 'secret'));
      for (const name of ['#watch-private-one', '#anything', '#server-to-user-']) {
        const body = { name: 'x', data: '{}', channels: [name] };
        await assert.rejects(made.back.post({ path: '/events', body }), (error) => assert.equal(error.status, 400) ?? true, name);
      }
    });

    test('unsubscribing from its own channel does not sign a user out', async () => {
      const raw = await made.signedIn({ id: 'loyal' });
      raw.send({ event: 'pusher:subscribe', data: { auth: '', channel: own('loyal') } });
      raw.send({ event: 'pusher:unsubscribe', data: { channel: own('loyal') } });
      await raw.settled();
      await made.back.sendToUser('loyal', 'hello', {});
      await raw.frames.find(({ event }) => event === 'hello', 'the event');
    });

    test('pusher-js is told who of its watchlist is there, who comes and who goes', async () => {
      const bob = await made.joinAs({ id: 'bob' });
      const ann = await made.joinAs({ id: 'anne', watchlist: ['bob', 'eve'] });
      await ann.user.watched.first(2);
      assert.deepEqual(ann.user.watched.all.slice(0, 2).sort(), [['offline', ['eve']], ['online', ['bob']]]);
      const eve = await made.joinAs({ id: 'eve' });
      assert.deepEqual((await ann.user.watched.first(3))[2], ['online', ['eve']]);
      bob.disconnect();
      assert.deepEqual((await ann.user.watched.first(4))[3], ['offline', ['bob']]);
      eve.disconnect();
      assert.deepEqual((await ann.user.watched.first(5))[4], ['offline', ['eve']]);
    });

    test('watchlist events have exactly their documented members', async () => {
      const there = await made.signedIn({ id: 'w-there' });
      const raw = await made.signedIn({ id: 'watcher', watchlist: ['w-there', 'w-away'] });
      const first = await raw.frames.find(({ event }) => event === 'pusher_internal:watchlist_events', 'the state');
      const { data, ...rest } = JSON.parse(first.text);
      assert.deepEqual(rest, { event: 'pusher_internal:watchlist_events' });
      assert.deepEqual(JSON.parse(data), { events: [{ name: 'online', user_ids: ['w-there'] }, { name: 'offline', user_ids: ['w-away'] }] });
      there.end();
      await raw.frames.until(() => watched(raw).length === 3, 'the change');
      assert.deepEqual(JSON.parse(raw.frames.all.at(-1).text), { event: 'pusher_internal:watchlist_events', data: '{"events":[{"name":"offline","user_ids":["w-there"]}]}' });
    });

    test('one without a watchlist is told of nobody', async () => {
      const raw = await made.signedIn({ id: 'lonely', watchlist: [] });
      const other = await made.signedIn({ id: 'lonely-too' });
      for (const each of [raw, other]) assert.deepEqual(watched({ frames: { all: await each.settled() } }), []);
    });

    test('a user is online from its first connection to its last, however they end', async () => {
      const watchers = await Promise.all(Array.from({ length: 6 }, (_, n) => made.signedIn({ id: `fan-${n}`, watchlist: ['star'] })));
      for (const raw of watchers) await raw.frames.until(() => watched(raw).length === 1, 'the state');
      const ends = [(raw) => raw.end(), (raw) => raw.socket.close(), (raw) => raw.socket._socket.end(), (raw) => raw.send('{"event":"pusher:signin","data":{"auth":"x","user_data":"{}"}}')];
      for (let round = 0; round < 3; round += 1) {
        const stars = await Promise.all(Array.from({ length: 8 }, () => made.signedIn({ id: 'star' })));
        for (const raw of watchers) await raw.frames.until(() => watched(raw).length === 2 + 2 * round, 'the star to come');
        for (const [n, star] of stars.entries()) ends[n % ends.length](star);
        for (const raw of watchers) await raw.frames.until(() => watched(raw).length === 3 + 2 * round, 'the star to go');
      }
      for (const raw of watchers) {
        await raw.settled();
        assert.deepEqual(watched(raw), ['offline star', 'online star', 'offline star', 'online star', 'offline star', 'online star', 'offline star']);
      }
    });

    test('while users come and go, every watcher is told states that alternate, and at the end the truth', async () => {
      const ids = Array.from({ length: 6 }, (_, n) => `walker-${n}`);
      const watchers = [];
      const walk = async (id, index) => {
        let raw;
        for (let round = 0; round < 10; round += 1) {
          raw = await made.signedIn({ id });
          if (round < 9) round % 2 ? raw.end() : raw.socket.close();
        }
        if (index % 2) raw.end();
      };
      const walking = Promise.all(ids.map(walk));
      for (let n = 0; n < 8; n += 1) watchers.push(await made.signedIn({ id: `walk-watcher-${n}`, watchlist: ids }));
      await within(walking, 'everyone to walk', 60_000);
      const truth = ids.map((_, index) => (index % 2 ? 'offline' : 'online'));
      for (const raw of watchers) {
        const histories = () => {
          const of = new Map(ids.map((id) => [id, []]));
          for (const line of watched(raw)) {
            const [name, ...told] = line.split(' ');
            for (const id of told) of.get(id).push(name);
          }
          return [...of.values()];
        };
        await raw.frames.until(() => histories().every((states, index) => states.at(-1) === truth[index]), () => `the truth, got ${JSON.stringify(histories())}`);
        for (const states of histories()) for (const [index, state] of states.entries()) assert.notEqual(state, states[index - 1], JSON.stringify(histories()));
      }
    });

    test('of a watchlist that is too long the first hundred count, with error 4302', async () => {
      const ids = Array.from({ length: 105 }, (_, n) => `long-${n}`);
      const raw = await made.signedIn({ id: 'curious', watchlist: ids });
      const error = await raw.frames.find(({ event }) => event === 'pusher:error', 'the error');
      assert.equal(error.data.code, 4302, error.text);
      assert.match(error.data.message, /Only the first 100 user IDs/);
      await raw.frames.find(({ event }) => event === 'pusher_internal:watchlist_events', 'the state');
      assert.deepEqual(watched(raw), [`offline ${ids.slice(0, 100).sort().join(' ')}`]);
      await made.signedIn({ id: 'long-104' });
      await made.signedIn({ id: 'long-99' });
      await raw.frames.until(() => watched(raw).length === 2, 'the change');
      assert.equal(watched(raw)[1], 'online long-99');
      assert.equal(raw.socket.readyState, 1);
    });

    test('a watchlist may name a user twice, and the user itself', async () => {
      const raw = await made.signedIn({ id: 'narcissus', watchlist: ['echo', 'narcissus', 'echo'] });
      await made.signedIn({ id: 'echo' });
      await raw.frames.until(() => watched(raw).includes('online echo'), 'the change');
      assert.equal(watched(raw).filter((line) => line === 'online echo').length, 1);
    });

    test('a signed-in user joins a presence channel without channel_data', async () => {
      const name = 'presence-signed-in';
      const witness = new Seat(await made.raw(), name);
      await witness.join({ user_id: 'witness' });
      const raw = await made.signedIn({ id: 'ann', user_info: { name: 'Ann' }, more: 1 });
      const seat = new Seat(raw, name);
      raw.send({ event: 'pusher:subscribe', data: signed(raw, name) });
      await seat.holds(['ann', 'witness']);
      assert.deepEqual(seat.roster.get('ann'), { name: 'Ann' });
      await witness.holds(['ann', 'witness']);
      assert.deepEqual(witness.roster.get('ann'), { name: 'Ann' });
      raw.send({ event: 'client-x', channel: name, data: {} });
      await witness.until(() => witness.events.length === 1, 'the client event');
      assert.equal(witness.events[0].user_id, 'ann');
      seat.leave();
      await witness.holds(['witness']);
    });

    test('channel_data goes before the signed-in user', async () => {
      const raw = await made.signedIn({ id: 'ann', user_info: { name: 'Ann' } });
      const seat = new Seat(raw, 'presence-override');
      const { ids, hash } = await seat.join({ user_id: 'masked', user_info: { name: '?' } });
      assert.deepEqual([ids, hash], [['masked'], { masked: { name: '?' } }]);
    });

    test('pusher-js joins a presence channel as its user', async () => {
      const client = await made.joinAs({ id: 'js-user', user_info: { name: 'J' } });
      const room = await subscribed(client, 'presence-js-user');
      assert.deepEqual(room.members.me, { id: 'js-user', info: { name: 'J' } });
    });

    test('terminating a user ends all of its connections with 4009, and no others', async () => {
      const all = await Promise.all(Array.from({ length: 8 }, () => made.signedIn({ id: 'banned' })));
      const [other, anonymous] = [await made.signedIn({ id: 'banned-not' }), await made.raw()];
      const fan = await made.signedIn({ id: 'fan', watchlist: ['banned'] });
      await fan.frames.until(() => watched(fan).includes('online banned'), 'the state');
      const answer = await made.back.terminateUserConnections('banned');
      assert.deepEqual([answer.status, await answer.text()], [200, '{}']);
      for (const raw of all) {
        assert.equal((await raw.closed()).code, 4009);
        const error = raw.frames.all.at(-1);
        assert.deepEqual([error.event, error.data.code], ['pusher:error', 4009]);
      }
      await fan.frames.until(() => watched(fan).at(-1) === 'offline banned', 'the change');
      for (const raw of [other, anonymous]) await raw.settled();
      const again = await made.signedIn({ id: 'banned' });
      await made.back.sendToUser('banned', 'hello', {});
      await again.frames.find(({ event }) => event === 'hello', 'the event');
    });

    test('terminating nobody is no error', async () => {
      const answer = await made.back.terminateUserConnections('nobody-at-all');
      assert.deepEqual([answer.status, await answer.text()], [200, '{}']);
    });

    test('pusher-js that is terminated stays away', async () => {
      const client = await made.joinAs({ id: 'thrown-out' });
      await made.back.terminateUserConnections('thrown-out');
      await client.states.find((state) => state === 'disconnected' || state === 'failed', 'disconnected');
      assert.ok(client.errors.all.some((error) => complaint(error).code === 4009), JSON.stringify(client.errors.all));
    });
  });
}

describe('an application that wants its connections authorized', () => {
  const made = users(group({ shards: 2, config: 'authorized_connections = true\nauthorization_timeout_s = 2\n' }));

  test('closes with 4009 those who neither sign in nor join a private or presence channel in time', async () => {
    const [silent, open] = [await made.raw(), await made.raw()];
    open.send({ event: 'pusher:subscribe', data: { channel: 'room' } });
    const [user, secret, member, refused] = [await made.signedIn({ id: 'ann' }), await made.raw(), new Seat(await made.raw(), 'presence-room'), await made.raw()];
    secret.send({ event: 'pusher:subscribe', data: signed(secret, 'private-room') });
    refused.send({ event: 'pusher:subscribe', data: { channel: 'private-room', auth: 'x' } });
    await member.join({ user_id: 'm' });
    for (const raw of [silent, open, refused]) {
      assert.equal((await raw.closed()).code, 4009);
      assert.equal(raw.frames.all.at(-1).data.code, 4009);
    }
    // Those who came after them had their time too, at the latest with the next one that is closed.
    assert.equal((await (await made.raw()).closed()).code, 4009);
    for (const raw of [user, secret, member.raw]) await raw.settled();
  });
});
