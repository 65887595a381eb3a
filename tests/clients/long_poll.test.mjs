// The long-poll form of history: a page that waits for its first event.

import assert from 'node:assert/strict';
import net from 'node:net';
import { describe, test } from 'node:test';
import { within } from './bounded.mjs';
import { library } from './clients.mjs';
import { group } from './group.mjs';
import { APP } from './server.mjs';
import { metric, until } from './told.mjs';

const KEPT = 'retained_channels = "kept-*"\ndrain_ms = 100\n';
const LONG_MS = 50_000;

/** The target of a signed request for a page. */
function target(server, name, params) {
  const path = `/apps/${APP.id}/channels/${name}/events`;
  return `${path}?${library(server).createSignedQueryString({ method: 'GET', path, params })}`;
}

/** Asks for a page on a connection of its own. `page` resolves to its body; `isAnswered` says whether it has come. */
function poll(server, name, params) {
  const [control, one] = [new AbortController(), { isAnswered: false }];
  const answer = fetch(`${server.url}${target(server, name, params)}`, { signal: control.signal, headers: { Connection: 'close' } });
  const page = answer.then(async (response) => {
    const text = await response.text();
    one.isAnswered = true;
    assert.equal(response.status, 200, text);
    return JSON.parse(text);
  });
  // Far less than it may wait: who is not told of an event, but has it when its time is over, is found.
  one.page = within(page, `a page of ${name}`);
  one.leave = () => {
    one.page.catch(() => {});
    control.abort();
  };
  return one;
}

const numbers = ({ events }) => events.map(({ serial, data }) => [serial, data]);
const waiting = (server, count) => until(server, 'outpour_history_requests_waiting', (value) => value === count);

for (const shards of [1, 4]) {
  describe(`a long poll, ${shards} shards`, () => {
    const made = group({ shards, config: KEPT });
    const publish = (channels, data) => made.back.trigger(channels, 'tick', data);

    // Broken on purpose once by telling nobody of an event: the pages come when their time is over, which is too late.
    test('waits for the next event, of any channel and on any shard, and then has it', async () => {
      const names = Array.from({ length: 8 }, (_, n) => `kept-wait-${n}`);
      const polls = names.flatMap((name) => [1, 2, 3].map(() => poll(made.server, name, { from: 1, wait_ms: LONG_MS })));
      await waiting(made.server, polls.length);
      assert.ok(polls.every(({ isAnswered }) => !isAnswered));
      await publish(names, 'one');
      const pages = await Promise.all(polls.map(({ page }) => page));
      for (const page of pages) {
        assert.deepEqual(numbers(page), [[1, 'one']]);
        assert.deepEqual([page.next, page.tail, page.head], [2, 1, 1]);
      }
      assert.equal(await metric(made.server, 'outpour_history_requests_waiting'), 0);
      // What is there already is not waited for.
      assert.deepEqual(numbers(await poll(made.server, names[0], { from: 1, wait_ms: LONG_MS }).page), [[1, 'one']]);
      assert.deepEqual(numbers(await poll(made.server, names[0], { wait_ms: LONG_MS }).page), [[1, 'one']]);
    });

    test('a reader that asks again and again has every event once', async () => {
      const name = 'kept-again';
      let isOver = false;
      const publishing = (async () => {
        for (let n = 1; n <= 60; n += 1) await publish(name, `${n}`);
        isOver = true;
      })();
      const got = [];
      for (let from = 1; got.length < 60; ) {
        const page = await poll(made.server, name, { from, wait_ms: LONG_MS }).page;
        assert.equal(page.missed, undefined);
        got.push(...numbers(page));
        from = page.next;
      }
      await publishing;
      assert.ok(isOver);
      assert.deepEqual(got, Array.from({ length: 60 }, (_, n) => [n + 1, `${n + 1}`]));
    });

    // Broken on purpose once by answering at the first event, whichever it is: then nobody waits any more.
    test('waits on while what comes is before its first event', async () => {
      const name = 'kept-ahead';
      const one = poll(made.server, name, { from: 3, wait_ms: LONG_MS });
      await waiting(made.server, 1);
      for (const data of ['one', 'two']) {
        await publish(name, data);
        await waiting(made.server, 1);
      }
      assert.ok(!one.isAnswered);
      await publish(name, 'three');
      assert.deepEqual(numbers(await one.page), [[3, 'three']]);
    });

    test('ends with its time and an empty page, from which it goes on', async () => {
      const name = 'kept-over';
      const page = await poll(made.server, name, { from: 1, wait_ms: 200 }).page;
      assert.deepEqual([page.events, page.next, page.head], [[], 1, 0]);
      await waiting(made.server, 0);
      const one = poll(made.server, name, { from: page.next, wait_ms: LONG_MS });
      await waiting(made.server, 1);
      await publish(name, 'one');
      assert.deepEqual(numbers(await one.page), [[1, 'one']]);
    });

    // Broken on purpose once by leaving those who end their side to their time, and once by not telling the home of a reset:
    // then it remembers the one half or the other.
    test('one who goes away is forgotten, in order and by a reset', async () => {
      const name = (n) => `kept-gone-${n % 4}`;
      const polls = Array.from({ length: 12 }, (_, n) => poll(made.server, name(n), { from: 1, wait_ms: LONG_MS }));
      const sockets = Array.from({ length: 12 }, (_, n) => {
        const socket = net.connect(made.server.port, '127.0.0.1');
        socket.write(`GET ${target(made.server, name(n), { from: 1, wait_ms: LONG_MS })} HTTP/1.1\r\nHost: here\r\n\r\n`);
        return socket;
      });
      await waiting(made.server, 24);
      for (const one of polls) one.leave();
      await waiting(made.server, 12);
      for (const socket of sockets) socket.resetAndDestroy();
      await waiting(made.server, 0);
    });
  });
}

describe('what is around it', () => {
  const made = group({ shards: 2, config: KEPT });

  test('what cannot be waited for is refused', async () => {
    const status = (params) => made.back.get({ path: '/channels/kept-a/events', params }).then(() => 200, (error) => error.status);
    assert.equal(await status({ wait_ms: 55_001 }), 400);
    assert.equal(await status({ wait_ms: 'x' }), 400);
    assert.equal(await status({ wait_ms: 10, direction: 'backward' }), 400);
  });

  // Broken on purpose once by leaving those who wait to their time: then the server ends after its bound, and they are not answered.
  test('a drain answers those who wait', async () => {
    const polls = Array.from({ length: 6 }, (_, n) => poll(made.server, `kept-drain-${n}`, { from: 1, wait_ms: LONG_MS }));
    await waiting(made.server, 6);
    const [, ...pages] = await Promise.all([made.server.stop('SIGTERM'), ...polls.map(({ page }) => page)]);
    for (const page of pages) assert.deepEqual([page.events, page.next], [[], 1]);
  });
});
