// Presence channels: who is there, as every member is told, whatever shards they are on and however they leave.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { within } from './bounded.mjs';
import { authorizer, pusherJs, subscribed } from './clients.mjs';
import { group, keep, mark } from './group.mjs';
import { Seat, signed } from './roster.mjs';
import { APP } from './server.mjs';

/** Forms in which frames come: compressed for windows of several sizes, and as they are. */
const FORMS = [undefined, { perMessageDeflate: { threshold: 0 } }, { perMessageDeflate: { threshold: 0, serverMaxWindowBits: 10 } }];

/** Seats for a group: each on a connection of its own, and of a form of its own if forms are `mixed`. */
function seats(made) {
  let taken = 0;
  made.seat = async (channel, { mixed = false } = {}) => new Seat(await made.raw(undefined, mixed ? FORMS[(taken += 1) % FORMS.length] : undefined), channel);
  made.seated = async (channel, user) => {
    const seat = await made.seat(channel);
    await seat.join(user);
    return seat;
  };
  return made;
}

const user = (id, user_info) => ({ user_id: id, ...(user_info === undefined ? {} : { user_info }) });

/** What the server answers to joining with these fields: the frame of the refusal. */
async function refusal(raw, fields) {
  const from = raw.frames.length;
  raw.send({ event: 'pusher:subscribe', data: fields });
  const answer = await raw.frames.find(({ event }) => event !== 'pusher:pong', 'an answer', undefined, from);
  const data = typeof answer.data === 'string' ? JSON.parse(answer.data) : answer.data;
  return { event: answer.event, channel: answer.channel, type: data.type, status: data.status, error: data.error };
}

for (const shards of [1, 2, 4]) {
  describe(`presence with ${shards} shards`, () => {
    const made = seats(group({ shards }));
    const joined = (id, info) => made.join({ channelAuthorization: authorizer(made.back, user(id, info)) });

    test('pusher-js sees who is there, who comes and who goes', async () => {
      const name = 'presence-office';
      const first = await joined('ann', { name: 'Ann' });
      const room = await subscribed(first, name);
      assert.equal(room.members.count, 1);
      assert.deepEqual(room.members.me, { id: 'ann', info: { name: 'Ann' } });
      const second = await joined(22, { name: 'Größe 🚀 "quoted"' });
      const other = await subscribed(second, name);
      assert.deepEqual(other.members.members, { ann: { name: 'Ann' }, 22: { name: 'Größe 🚀 "quoted"' } });
      assert.deepEqual(other.members.me, { id: 22, info: { name: 'Größe 🚀 "quoted"' } });
      const [, added] = await room.arrivals.find(([event]) => event === 'pusher:member_added', 'the arrival');
      assert.deepEqual(added, { id: 22, info: { name: 'Größe 🚀 "quoted"' } });
      assert.equal(room.members.count, 2);
      second.unsubscribe(name);
      const [, removed] = await room.arrivals.find(([event]) => event === 'pusher:member_removed', 'the departure');
      assert.deepEqual(removed, { id: 22, info: { name: 'Größe 🚀 "quoted"' } });
      assert.equal(room.members.count, 1);
      await mark(made.back, room);
      const told = room.arrivals.all.filter(([event]) => event.startsWith('pusher:member_'));
      assert.equal(told.length, 2, JSON.stringify(told));
      assert.deepEqual(other.arrivals.all.filter(([event]) => event.startsWith('pusher:member_')), []);
    });

    test('the acknowledgement has the count, the ids as strings and what is known of each', async () => {
      const name = 'presence-shape';
      await made.seated(name, user(7));
      const seat = await made.seated(name, user('8', ['any', { json: null }]));
      const { text } = seat.raw.frames.all.find(({ event }) => event === 'pusher_internal:subscription_succeeded');
      const { data, ...envelope } = JSON.parse(text);
      assert.deepEqual(envelope, { event: 'pusher_internal:subscription_succeeded', channel: name });
      const { presence, ...rest } = JSON.parse(data);
      assert.deepEqual(rest, {});
      assert.deepEqual({ ...presence, ids: presence.ids.sort() }, { count: 2, ids: ['7', '8'], hash: { 7: {}, 8: ['any', { json: null }] } });
    });

    test('events of members echo the type of their ids, up to 2^53', async () => {
      const name = 'presence-numbers';
      const witness = await made.seated(name, user('witness'));
      const ids = [0, 1, 2 ** 31, 2 ** 53, '2', 'größe', 'a"b\\c'];
      for (const id of ids) {
        const seat = await made.seated(name, user(id, { of: id }));
        assert.ok(seat.roster.has(String(id)), `${[...seat.roster.keys()]}`);
        await witness.until(() => witness.changes.length % 2 === 1, () => `the arrival of ${id}`);
        assert.deepEqual(witness.roster.get(String(id)), { of: id });
        seat.leave();
        await witness.until(() => witness.changes.length % 2 === 0, () => `the departure of ${id}`);
      }
      assert.deepEqual(witness.changes, ids.flatMap((id) => [['added', id], ['removed', id]]));
      witness.check();
    });

    test('an arrival and a departure have exactly their documented members', async () => {
      const name = 'presence-documented';
      const witness = await made.seated(name, user('witness'));
      const guest = await made.seated(name, user(11, { name: 'A' }));
      guest.leave();
      await witness.until(() => witness.changes.length === 2, 'both changes');
      const told = witness.raw.frames.all.filter(({ event }) => event.startsWith('pusher_internal:member_')).map(({ text }) => JSON.parse(text));
      assert.deepEqual(told.map(({ data, ...rest }) => ({ ...rest, data: JSON.parse(data) })), [
        { event: 'pusher_internal:member_added', channel: name, data: { user_id: 11, user_info: { name: 'A' } } },
        { event: 'pusher_internal:member_removed', channel: name, data: { user_id: 11 } },
      ]);
    });

    test('a user with many connections comes once, with the first, and goes once, with the last', async () => {
      const name = 'presence-many-connections';
      const witness = await made.seated(name, user('witness'));
      const all = [];
      for (let n = 0; n < 8; n += 1) all.push(await made.seated(name, user(n % 2 ? '5' : 5, { n })));
      for (const seat of all) assert.equal(seat.acknowledgements[0].count, 2);
      for (const [n, seat] of all.entries()) n % 2 ? seat.leave() : seat.raw.end();
      await witness.holds(['witness']);
      await mark(made.back, await subscribed(await joined('witness'), name));
      assert.deepEqual(witness.changes, [['added', 5], ['removed', 5]]);
      for (const seat of all) {
        seat.catchUp();
        assert.deepEqual(seat.changes, [], 'a user was told of itself');
      }
    });

    test('members who all come at once all know each other, whatever form their frames have', async () => {
      const raws = await Promise.all(Array.from({ length: 48 }, (_, n) => made.raw(undefined, FORMS[n % FORMS.length])));
      for (let round = 0; round < 5; round += 1) {
        const name = `presence-stampede-${round}`;
        const all = raws.map((raw) => new Seat(raw, name));
        for (const [n, seat] of all.entries()) seat.ask(user(n));
        for (const seat of all) await seat.holds(raws.keys());
        for (const [n, seat] of all.entries()) if (n % 2) seat.leave();
        for (const [n, seat] of all.entries()) if (n % 2 === 0) await seat.holds([...raws.keys()].filter((id) => id % 2 === 0));
      }
    });

    const ways = {
      unsubscribing: (seat) => seat.leave(),
      'a Close frame': (seat) => seat.raw.socket.close(1000),
      'the end of TCP': (seat) => seat.raw.end(),
      'a violation of the protocol': (seat) => seat.raw.socket.send(Buffer.from([1, 2, 3]), { binary: true }),
    };
    for (const [what, leave] of Object.entries(ways)) {
      test(`one leaves by ${what}`, async () => {
        const name = `presence-leave-${what.replace(/\W/g, '-')}`;
        const witnesses = [];
        for (let n = 0; n < 4; n += 1) witnesses.push(await made.seated(name, user(`witness-${n}`)));
        const staying = witnesses.map((_, n) => `witness-${n}`);
        const guests = [];
        for (let n = 0; n < 8; n += 1) guests.push(await made.seated(name, user(n)));
        for (const seat of witnesses) await seat.holds([...staying, ...guests.keys()]);
        for (const guest of guests) leave(guest);
        for (const seat of witnesses) await seat.holds(staying);
        const later = await made.seated(name, user('later'));
        assert.deepEqual([...later.roster.keys()].sort(), ['later', ...staying]);
      });
    }

    test('pusher-js leaves by disconnecting', async () => {
      const witness = await made.seated('presence-disconnect', user('witness'));
      const client = await joined('guest');
      await subscribed(client, 'presence-disconnect');
      await witness.holds(['witness', 'guest']);
      client.disconnect();
      await witness.holds(['witness']);
    });

    test('one who joins and leaves in one write was there, and is not', async () => {
      const name = 'presence-in-and-out';
      const witness = await made.seated(name, user('witness'));
      const raws = await Promise.all(Array.from({ length: 8 }, () => made.raw()));
      for (const [n, raw] of raws.entries()) {
        const seat = new Seat(raw, name);
        raw.socket._socket.cork();
        for (let round = 0; round < 10; round += 1) {
          seat.ask(user(n));
          seat.leave();
        }
        raw.socket._socket.uncork();
        seat.last = raw.settled();
        raw.seat = seat;
      }
      for (const raw of raws) {
        await raw.seat.last;
        raw.seat.catchUp();
        assert.equal(raw.seat.acknowledgements.length, 10);
      }
      await witness.holds(['witness']);
      const later = await made.seated(name, user('later'));
      assert.deepEqual([...later.roster.keys()].sort(), ['later', 'witness']);
      await witness.holds(['witness', 'later']);
      assert.equal(witness.changes.length, 8 * 10 * 2 + 1);
    });

    test('one who joins and ends the connection in one write leaves no ghost', async () => {
      const name = 'presence-hit-and-run';
      const witness = await made.seated(name, user('witness'));
      for (const end of [(raw) => raw.end(), (raw) => raw.socket.close(1000), (raw) => raw.socket._socket.end()]) {
        const raws = await Promise.all(Array.from({ length: 12 }, () => made.raw()));
        for (const [n, raw] of raws.entries()) {
          new Seat(raw, name).ask(user(n));
          end(raw);
        }
        await Promise.all(raws.map((raw) => raw.closed()));
      }
      // Those whose TCP ended may be noticed after messages that others sent later: rosters come to rest, not at once.
      for (const id of ['later', 'latest']) {
        const later = await made.seated(name, user(id));
        await later.holds(['witness', id]);
        await witness.holds(['witness', id]);
        later.leave();
      }
    });

    test('a second subscription is refused, and the member stays one', async () => {
      const name = 'presence-twice';
      const witness = await made.seated(name, user('witness'));
      const guest = await made.seated(name, user('guest'));
      const fields = signed(guest.raw, name, JSON.stringify(user('guest')));
      const from = guest.raw.frames.length;
      guest.raw.send({ event: 'pusher:subscribe', data: fields });
      const refused = await guest.raw.frames.find(({ event }) => event === 'pusher:error', 'the refusal', undefined, from);
      assert.match(refused.data.message, /^Existing subscription to channel presence-twice/);
      const other = signed(guest.raw, name, JSON.stringify(user('another')));
      guest.raw.send({ event: 'pusher:subscribe', data: other });
      await guest.raw.frames.find(({ event }) => event === 'pusher:error', 'the refusal', undefined, from + 1);
      guest.leave();
      await witness.until(() => witness.changes.length === 2, 'the guest to come and go');
      assert.deepEqual(witness.changes, [['added', 'guest'], ['removed', 'guest']]);
    });

    test('a client event tells who sent it, and reaches all others', async () => {
      const name = 'presence-chat';
      const all = [];
      for (const id of ['ann', 22, 'bob']) all.push(await made.seated(name, user(id)));
      for (const seat of all) await seat.holds(['ann', 22, 'bob']);
      all[0].raw.send({ event: 'client-hello', channel: name, data: { a: 1 } });
      for (const seat of all.slice(1)) await seat.until(() => seat.events.length === 1, 'the first event');
      all[1].raw.send({ event: 'client-hello', channel: name });
      for (const seat of [all[0], all[2]]) await seat.until(() => seat.events.length >= (seat === all[0] ? 1 : 2), 'the second event');
      await made.back.trigger(name, 'last', 'from the back end');
      for (const seat of all) await seat.until(() => seat.events.at(-1)?.event === 'last', 'the last event');
      const [ann, number, last] = [
        { event: 'client-hello', data: { a: 1 }, user_id: 'ann', period: 1 },
        { event: 'client-hello', user_id: '22', period: 1 },
        { event: 'last', data: 'from the back end', period: 1 },
      ];
      assert.deepEqual(all.map(({ events }) => events), [[number, last], [ann, last], [ann, number, last]]);
    });

    test('those excluded by socket_id still see who comes', async () => {
      const name = 'presence-excluded';
      const [left, right] = [await made.seated(name, user('left')), await made.seated(name, user('right'))];
      await made.back.trigger(name, 'one', {}, { socket_id: left.raw.socketId });
      await made.seated(name, user('third'));
      await made.back.trigger(name, 'two', {});
      for (const seat of [left, right]) {
        await seat.until(() => seat.events.at(-1)?.event === 'two', 'the last event');
        assert.equal(seat.changes.at(-1)[1], 'third');
      }
      assert.deepEqual(left.events.map(({ event }) => event), ['two']);
      assert.deepEqual(right.events.map(({ event }) => event), ['one', 'two']);
    });

    test('members come and go at random while events flow: everybody is told the truth, in one order', async () => {
      await churn(made, 'presence-churn');
    });
  });
}

/**
 * `count` connections join as one of a few users, leave in every way and come back, while a back end publishes. Each is
 * told a roster and changes that fit together, an unbroken run of the events, and at the end what all others are told.
 */
async function churn(made, name, { count = 24, rounds = 12, users = 9 } = {}) {
  let isOver = false;
  let published = 0;
  const publishing = (async () => {
    for (; !isOver; published += 1) await made.back.trigger(name, 'step', String(published));
  })();
  // Drawn from a fixed sequence: what differs between two runs is the order in which things happen.
  let state = 0x2545f491;
  const draw = (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const all = [];
  const live = async () => {
    let seat = keep(all, await made.seat(name, { mixed: true }));
    for (let round = 1; ; round += 1) {
      await seat.join(user(draw(users)));
      if (draw(2)) await seat.until(() => seat.events.length > 0, 'an event');
      if (round === rounds) return seat;
      const way = draw(4);
      if (way < 2) seat.leave();
      else {
        if (way === 2) seat.raw.end();
        else seat.raw.socket.close();
        seat = keep(all, await made.seat(name, { mixed: true }));
      }
    }
  };
  const witness = keep(all, await made.seated(name, user('witness')));
  const staying = await within(Promise.all(Array.from({ length: count }, live)), 'everyone to come and go', 60_000);
  isOver = true;
  await publishing;
  const later = keep(all, await made.seated(name, user('later')));
  const truth = new Set([...staying, witness, later].map((seat) => String(seat.user.user_id)));
  for (const seat of [...staying, witness, later]) await seat.holds(truth);
  for (const seat of all) {
    seat.check();
    for (const [index, event] of seat.events.entries()) {
      const step = event.data - (seat.events[index - 1]?.data ?? event.data - 1);
      assert.ok(event.period === seat.events[index - 1]?.period ? step === 1 : step > 0, `events before ${JSON.stringify(event)}: ${JSON.stringify(seat.events.slice(0, index))}`);
    }
  }
  assert.equal(witness.events.at(-1).data, String(published - 1));
}

describe('limits of presence', () => {
  const made = seats(group({ shards: 2 }));

  test('a hundred members, and no more until one has gone', async () => {
    const name = 'presence-full';
    const all = [];
    for (let n = 0; n < 100; n += 1) all.push(await made.seated(name, user(n)));
    assert.equal(all.at(-1).acknowledgements[0].count, 100);
    const late = await made.seat(name);
    const refused = await refusal(late.raw, signed(late.raw, name, JSON.stringify(user('late'))));
    assert.deepEqual([refused.event, refused.channel, refused.type, refused.status], ['pusher:subscription_error', name, 'LimitReached', 4100]);
    assert.equal(typeof refused.error, 'string');
    // Another connection of one who is there is no other member.
    const again = await made.seated(name, user(5));
    assert.equal(again.acknowledgements[0].count, 100);
    again.leave();
    await made.back.trigger(name, 'fence', {});
    await all[0].until(() => all[0].events.length === 1, 'the fence');
    assert.deepEqual(all[0].changes.length, 99);
    late.catchUp();
    assert.equal(late.events.length, 0, 'one who was refused got an event');
    all[7].leave();
    await all[0].until(() => !all[0].roster.has('7'), 'one to leave');
    const { ids } = await late.join(user('late'));
    assert.ok(ids.includes('late') && !ids.includes('7') && ids.length === 100);
    await all[0].holds(ids);
  });

  const refusals = [
    ['a user object of more than 1 KB', user('large', 'x'.repeat(1_100)), 'LimitReached', 4301],
    ['an id of more than 128 characters', user('x'.repeat(129)), 'LimitReached', 4301],
    ['no channel_data', undefined, 'InvalidMember', 400],
    ['channel_data that is not JSON', 'nonsense', 'InvalidMember', 400],
    ['channel_data that is an array', '["11"]', 'InvalidMember', 400],
    ['no user_id', '{"user_info":{}}', 'InvalidMember', 400],
    ['an empty user_id', '{"user_id":""}', 'InvalidMember', 400],
    ['a user_id that is an object', '{"user_id":{}}', 'InvalidMember', 400],
    ['a user_id that is null', '{"user_id":null}', 'InvalidMember', 400],
    ['a number beyond 2^53', '{"user_id":9007199254740993}', 'InvalidMember', 400],
    ['a fraction', '{"user_id":1.5}', 'InvalidMember', 400],
  ];
  for (const [what, data, type, status] of refusals) {
    test(`refused: ${what}`, async () => {
      const name = 'presence-refused';
      const witness = await made.seated(name, user('witness'));
      const raw = await made.raw();
      const text = typeof data === 'object' ? JSON.stringify(data) : data;
      const answer = await refusal(raw, signed(raw, name, text));
      assert.deepEqual([answer.event, answer.channel, answer.type, answer.status], ['pusher:subscription_error', name, type, status]);
      await made.back.trigger(name, 'fence', {});
      await witness.until(() => witness.events.length === 1, 'the fence');
      assert.deepEqual(witness.changes, []);
      witness.leave();
      assert.equal((await new Seat(raw, name).join(user('well'))).ids.includes('well'), true);
    });
  }

  test('a user object of 1 KB and an id of 128 characters are within the limits', async () => {
    const seat = await made.seated('presence-large', user('é'.repeat(128)));
    assert.deepEqual([...seat.roster.keys()], ['é'.repeat(128)]);
    const other = await made.seated('presence-large', user('large', 'x'.repeat(1_000)));
    assert.equal(other.roster.get('large'), 'x'.repeat(1_000));
  });

  test('a signature over anything but socket, channel and data is refused with 401', async () => {
    const name = 'presence-forged';
    const raw = await made.raw();
    const [data, other] = [JSON.stringify(user('me')), JSON.stringify(user('you'))];
    const right = signed(raw, name, data);
    const forgeries = [
      { ...right, channel_data: other },
      { ...right, channel_data: undefined },
      { ...signed(raw, name), channel_data: data },
      { ...signed({ socketId: '1.1' }, name, data) },
      { ...signed(raw, 'presence-other', data), channel: name },
      { ...right, auth: right.auth.replace(APP.key, 'other-key') },
      { ...right, auth: right.auth.slice(0, -1) },
      { ...right, auth: '' },
    ];
    for (const fields of forgeries) {
      const answer = await refusal(raw, fields);
      assert.deepEqual([answer.event, answer.channel, answer.type, answer.status], ['pusher:subscription_error', name, 'AuthError', 401], JSON.stringify(fields));
    }
    const seat = new Seat(raw, name);
    assert.deepEqual((await seat.join(data)).ids, ['me']);
  });

  test('pusher-js hears of a refusal on the channel', async () => {
    const client = await made.join({ channelAuthorization: authorizer(made.back, user('x'.repeat(129))) });
    await assert.rejects(subscribed(client, 'presence-refused'), /pusher:subscription_error .*LimitReached.*4301/);
    assert.equal(client.connection.state, 'connected');
  });
});

describe('a presence channel that may be larger', () => {
  const made = seats(group({ shards: 2, activityTimeout: 120, config: 'presence_members_max = 1000\n' }));

  test('has a thousand members, each told of all others, and no more', async () => {
    const name = 'presence-thousand';
    const first = await made.seated(name, user(0));
    const all = [first];
    for (let from = 1; from < 1_000; from += 111) {
      const some = await Promise.all(Array.from({ length: 111 }, () => made.seat(name)));
      for (const [n, seat] of some.entries()) seat.ask(user(from + n));
      for (const seat of some) await seat.until(() => seat.acknowledgements.length === 1, 'an acknowledgement');
      all.push(...some);
    }
    const ids = Array.from({ length: 1_000 }, (_, n) => n);
    for (const seat of [first, all[1], all[500], all[999]]) await seat.holds(ids);
    const late = await made.raw();
    assert.equal((await refusal(late, signed(late, name, JSON.stringify(user('late'))))).status, 4100);
    for (const seat of all.slice(1, 500)) seat.raw.end();
    for (const seat of [first, all[500], all[999]]) await seat.holds([0, ...ids.slice(500)]);
  });
});

describe('members who vanish', () => {
  const made = seats(group({ shards: 2, activityTimeout: 1, config: 'pong_timeout_s = 2\n' }));

  test('are gone when they have not answered in time, and those who answer stay', async () => {
    const name = 'presence-vanished';
    const witness = await made.seated(name, user('witness'));
    const [alive, vanished] = [await made.seated(name, user('alive')), await made.seated(name, user('vanished'))];
    await witness.holds(['witness', 'alive', 'vanished']);
    // It reads nothing and answers nothing, but its TCP lives on.
    vanished.raw.socket.pause();
    await witness.holds(['witness', 'alive']);
    await alive.holds(['witness', 'alive']);
    const later = await made.seated(name, user('later'));
    assert.equal(later.acknowledgements[0].count, 3);
  });
});

describe('presence across the end of a server', () => {
  const made = seats(group({ shards: 2, config: 'drain_ms = 500\n' }));

  test('while it drains, everybody is told of departures that fit, and told 4200', async () => {
    const name = 'presence-drain';
    const all = [];
    for (let n = 0; n < 30; n += 1) all.push(await made.seated(name, user(n % 20)));
    for (const seat of all) await seat.holds(Array.from({ length: 20 }, (_, n) => n));
    const closes = Promise.all(all.map((seat) => seat.raw.closed()));
    const end = await made.server.stop('SIGTERM');
    assert.deepEqual([end.code, end.signal], [0, null], made.server.output);
    for (const { code } of await closes) assert.equal(code, 4200);
    for (const seat of all) seat.check();
  });

  test('after a restart pusher-js is back, and nobody else is', async () => {
    const name = 'presence-restart';
    const clients = [];
    for (const id of ['ann', 'bob', 'gone']) clients.push(keep(made.clients, pusherJs(made.server, { channelAuthorization: authorizer(made.back, user(id)) })));
    const rooms = await Promise.all(clients.map((client) => subscribed(client, name)));
    await rooms[0].arrivals.until(() => rooms[0].members.count === 3, 'three members');
    const answers = rooms.slice(0, 2).map((room) => room.arrivals.length);
    await made.server.stop('SIGTERM');
    for (const client of clients) client.disconnect();
    await made.server.start();
    // At once, where pusher-js by itself would let the rest of 15 s go by after its first try.
    for (const client of clients.slice(0, 2)) client.connect();
    for (const [index, room] of rooms.slice(0, 2).entries()) {
      await room.arrivals.find(([event]) => event === 'pusher:subscription_succeeded', 'the second answer', 60_000, answers[index]);
      await room.arrivals.until(() => room.members.count === 2, 'two members');
      assert.deepEqual(Object.keys(room.members.members).sort(), ['ann', 'bob']);
    }
    for (const client of clients) client.disconnect();
  });
});
