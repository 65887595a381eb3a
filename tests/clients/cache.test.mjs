// Cache channels: whoever subscribes is told the last event that a back end published, or that there is none.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { within } from './bounded.mjs';
import { authorizer, subscribed } from './clients.mjs';
import { group, mark } from './group.mjs';
import { signed } from './roster.mjs';

const MEMBER = { user_id: 'me', user_info: {} };

/** The first parts of the four kinds of names. */
const KINDS = ['cache-', 'private-cache-', 'private-encrypted-cache-', 'presence-cache-'];

/** What a raw client is told of the channel from its subscription on, as [event, data], until the server has read all of it. */
async function told(made, name, raw) {
  const client = raw ?? (await made.raw());
  const from = client.frames.length;
  const fields = /^(private|presence)-/.test(name) ? signed(client, name, name.startsWith('presence-') ? JSON.stringify(MEMBER) : undefined) : { channel: name };
  client.send({ event: 'pusher:subscribe', data: fields });
  await client.frames.find((frame) => frame.channel === name && frame.event.startsWith('pusher'), 'an answer', undefined, from);
  const all = await client.settled();
  return all.slice(from).filter(({ channel }) => channel === name);
}

for (const shards of [1, 4]) {
  describe(`cache channels with ${shards} shards`, () => {
    const made = group({ shards });

    for (const kind of KINDS) {
      test(`${kind}: who comes is told of a miss, or the last event, after the answer`, async () => {
        const name = `${kind}room`;
        const first = await made.raw();
        const [answer, miss, ...rest] = await told(made, name, first);
        assert.equal(answer.event, 'pusher_internal:subscription_succeeded', answer.text);
        assert.deepEqual(JSON.parse(miss.text), { event: 'pusher:cache_miss', channel: name });
        assert.deepEqual(rest, []);
        await publish(made, name, 'old', 'one');
        await publish(made, name, 'new', '{"text":"Größe 🚀 \\"quoted\\""}');
        for (let n = 0; n < 6; n += 1) {
          const [answered, cached, ...more] = await told(made, name);
          assert.equal(answered.event, 'pusher_internal:subscription_succeeded', answered.text);
          assert.deepEqual(JSON.parse(cached.text), { event: 'new', channel: name, data: '{"text":"Größe 🚀 \\"quoted\\""}' });
          assert.deepEqual(more, []);
        }
        const seen = (await first.settled()).filter(({ channel, event }) => channel === name && !event.startsWith('pusher')).map(({ event }) => event);
        assert.deepEqual(seen, ['old', 'new']);
      });

      test(`${kind}: pusher-js gets the event that was published before it came`, async () => {
        const back = made.library({ encryptionMasterKeyBase64: randomBytes(32).toString('base64') });
        const name = `${kind}late`;
        const first = await subscribed(await made.join({ channelAuthorization: authorizer(back, { user_id: 'first' }) }), name);
        await first.arrivals.find(([event]) => event === 'pusher:cache_miss', 'the miss');
        await back.trigger(name, 'state', { at: 1 });
        await back.trigger(name, 'state', { at: 2 });
        const late = await subscribed(await made.join({ channelAuthorization: authorizer(back, { user_id: 'late' }) }), name);
        await late.arrivals.find(([event]) => event === 'state', 'the cached event');
        // The marker becomes the cached event itself, but comes to those who are there as any other.
        assert.deepEqual(await mark(back, late), [['state', { at: 2 }]]);
        assert.deepEqual(await mark(back, first), [['state', { at: 1 }], ['state', { at: 2 }]]);
        assert.ok(late.arrivals.all.every(([event]) => event !== 'pusher:cache_miss'));
      });
    }

    test('a channel without subscribers keeps its event', async () => {
      for (let n = 0; n < 8; n += 1) {
        const name = `cache-nobody-${n}`;
        await publish(made, name, 'kept', String(n));
        for (let times = 0; times < 3; times += 1) {
          const raw = await made.raw();
          const [, cached] = await told(made, name, raw);
          assert.deepEqual([cached.event, cached.data], ['kept', String(n)]);
          raw.send({ event: 'pusher:unsubscribe', data: { channel: name } });
          const [, again] = await told(made, name, raw);
          assert.deepEqual([again.event, again.data], ['kept', String(n)]);
          raw.end();
        }
      }
    });

    test('client events are not cached', async () => {
      for (const name of ['private-cache-chat', 'presence-cache-chat']) {
        const sender = await made.raw();
        await told(made, name, sender);
        sender.send({ event: 'client-typing', channel: name, data: {} });
        await sender.settled();
        const [, miss] = await told(made, name);
        assert.equal(miss.event, 'pusher:cache_miss', miss.text);
        await publish(made, name, 'kept', 'x');
        sender.send({ event: 'client-typing', channel: name, data: {} });
        await sender.settled();
        const [, cached] = await told(made, name);
        assert.deepEqual([cached.event, cached.data], ['kept', 'x']);
      }
    });

    test('arrivals and departures of members are not cached', async () => {
      const name = 'presence-cache-members';
      const one = await made.raw();
      await told(made, name, one);
      one.send({ event: 'pusher:unsubscribe', data: { channel: name } });
      await one.settled();
      const [, miss] = await told(made, name);
      assert.equal(miss.event, 'pusher:cache_miss', miss.text);
    });

    test('the last event of a batch that names the channel is cached, and an excluded subscriber is told it later', async () => {
      const name = 'cache-batch';
      const raw = await made.raw();
      await told(made, name, raw);
      const batch = ['a', 'b', 'c'].map((event) => ({ channel: event === 'c' ? 'cache-batch-other' : name, name: event, data: event, socket_id: raw.socketId }));
      await made.back.triggerBatch(batch);
      const live = (await raw.settled()).filter(({ channel, event }) => channel === name && !event.startsWith('pusher'));
      assert.deepEqual(live, []);
      raw.send({ event: 'pusher:unsubscribe', data: { channel: name } });
      const [, cached] = await told(made, name, raw);
      assert.deepEqual([cached.event, cached.data], ['b', 'b']);
      assert.equal((await told(made, 'cache-batch-other'))[1].event, 'c');
    });

    test('one publish to several channels is cached in each cache channel among them', async () => {
      await made.back.trigger(['cache-several-a', 'several', 'cache-several-b'], 'all', 'x');
      for (const name of ['cache-several-a', 'cache-several-b']) assert.equal((await told(made, name))[1].event, 'all');
      assert.equal((await told(made, 'several')).length, 1);
    });

    test('a name that only contains the word is no cache channel', async () => {
      await made.back.trigger('my-cache-room', 'x', {});
      const raw = await made.raw();
      assert.deepEqual((await told(made, 'my-cache-room', raw)).map(({ event }) => event), ['pusher_internal:subscription_succeeded']);
    });

    test('while events flow, who comes is told the last one and then each that follows', async () => {
      const name = 'cache-flow';
      let isOver = false;
      let published = 0;
      const publishing = (async () => {
        for (; !isOver; published += 1) await publish(made, name, 'step', String(published));
      })();
      const raws = [];
      for (let n = 0; n < 40; n += 1) {
        const raw = await made.raw();
        raw.send({ event: 'pusher:subscribe', data: { channel: name } });
        raws.push(raw);
      }
      for (const raw of raws) await raw.frames.first(6);
      isOver = true;
      await publishing;
      await publish(made, name, 'last', String(published));
      for (const raw of raws) {
        await raw.frames.find(({ event }) => event === 'last', 'the last event');
        const steps = raw.frames.all.filter(({ event }) => event === 'step' || event === 'last').map(({ data }) => Number(data));
        assert.deepEqual(steps, Array.from({ length: published + 1 - steps[0] }, (_, n) => steps[0] + n), `after ${raw.frames.all[2].text}`);
      }
    });
  });
}

describe('a cache channel whose events are kept for a second', () => {
  const made = group({ shards: 2, config: 'cache_ttl_s = 1\n' });

  test('misses again when the time is over, and keeps what is published then', async () => {
    for (const name of ['cache-short', 'presence-cache-short']) {
      await publish(made, name, 'state', 'old');
      // A subscriber that stays must not make the event stay.
      const raw = await made.raw();
      const first = await told(made, name, raw);
      assert.ok(first[1].data === 'old' || first[1].event === 'pusher:cache_miss', first[1].text);
      // Each try is told by a server that may have forgotten meanwhile: the number of tries is bounded by patience.
      const missed = async () => {
        for (;;) if ((await told(made, name))[1].event === 'pusher:cache_miss') return;
      };
      await within(missed(), 'a miss');
      await publish(made, name, 'state', 'new');
      assert.equal((await told(made, name))[1].data, 'new');
    }
  });
});

/** Publishes data as it is, to encrypted channels too: the server relays what it cannot read. */
async function publish(made, name, event, data) {
  const answer = await made.back.post({ path: '/events', body: { name: event, data, channels: [name] } });
  assert.equal(answer.status, 200);
}
