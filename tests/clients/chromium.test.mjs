// pusher-js and laravel-echo in headless Chromium, on pages of a small web server that also authorises channels.
//
// TEST_CHROMIUM names another browser than /usr/bin/chromium.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Arrivals, within } from './bounded.mjs';
import { library, Raw } from './clients.mjs';
import { Line } from './line.mjs';
import { APP, Server } from './server.mjs';

const require = createRequire(import.meta.url);
const SCRIPTS = {
  '/pusher.js': require.resolve('pusher-js/dist/web/pusher.js'),
  '/echo.js': require.resolve('laravel-echo/iife'),
  '/sockjs.js': require.resolve('sockjs-client/dist/sockjs.js'),
};
const PAGE = `<!doctype html><html lang="en"><meta charset="utf-8"><title>outpour</title>
<script src="/pusher.js"></script><script src="/echo.js"></script><script src="/sockjs.js"></script><body></body>`;

let server;
let back;
let site;
let browser;
let profile;
/** What the pages complained about; checked after every test. */
let complaints;

before(async () => {
  server = await Server.start({ shards: 2, activityTimeout: 2 });
  back = library(server);
  site = await serveSite();
  profile = mkdtempSync(path.join(os.tmpdir(), 'outpour-chromium-'));
  browser = await within(
    chromium.launchPersistentContext(profile, {
      executablePath: process.env.TEST_CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      chromiumSandbox: false,
      args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    }),
    'Chromium to start',
    60_000,
  );
});
after(async () => {
  await browser?.close();
  site?.closeAllConnections();
  site?.close();
  back?.hangUp();
  if (profile) rmSync(profile, { recursive: true, force: true });
  await server?.close();
});
beforeEach(() => {
  server.assertAlive();
  complaints = [];
});
afterEach(async () => {
  await Promise.all(browser.pages().slice(1).map((page) => page.close()));
  assert.deepEqual(complaints, [], 'a page complained');
});

/** The page, the two libraries, and the channel authorisation that a back end would answer with. */
async function serveSite() {
  const site = http.createServer((request, response) => {
    const answer = (status, type, body) => response.writeHead(status, { 'content-type': type }).end(body);
    if (request.url === '/') return answer(200, 'text/html', PAGE);
    if (SCRIPTS[request.url]) return answer(200, 'text/javascript', readFileSync(SCRIPTS[request.url]));
    if (request.url === '/favicon.ico') return answer(204, 'image/x-icon', '');
    if (request.method !== 'POST' || !['/broadcasting/auth', '/broadcasting/user-auth'].includes(request.url)) return answer(404, 'text/plain', 'nothing here');
    let body = '';
    request.on('data', (bytes) => (body += bytes));
    request.on('end', () => {
      const form = new URLSearchParams(body);
      const [socketId, name] = [form.get('socket_id'), form.get('channel_name')];
      // Who the page is: pages say it themselves, where an application would know it from its own session.
      const member = { user_id: form.get('user'), user_info: { name: `Name of ${form.get('user')}` } };
      const signed = {
        '/broadcasting/auth': () => back.authorizeChannel(socketId, name, name.startsWith('presence-') ? member : undefined),
        '/broadcasting/user-auth': () => back.authenticateUser(socketId, { id: form.get('user'), user_info: member.user_info, watchlist: ['page-friend'] }),
      };
      answer(200, 'application/json', JSON.stringify(signed[request.url]()));
    });
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  return site;
}

/** A page with both libraries loaded. `tell(name, data)` in it adds to `told` here; `socketFrames` are those of its WebSocket. */
async function open() {
  const page = await browser.newPage();
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('requestfailed', (request) => {
    const failure = request.failure()?.errorText;
    // A stream is dropped by its reader.
    const isDropped = failure === 'net::ERR_ABORTED' && /\/(xhr|xhr_streaming|events)\?/.test(request.url());
    if (!isDropped) complaints.push(`${request.url()} ${failure}`);
  });
  page.told = new Arrivals('what the page told');
  page.socketFrames = new Arrivals('WebSocket frames of the page');
  page.on('websocket', (socket) => {
    socket.on('framesent', ({ payload }) => page.socketFrames.add(['sent', String(payload)]));
    socket.on('framereceived', ({ payload }) => page.socketFrames.add(['received', String(payload)]));
    socket.on('close', () => page.socketFrames.add(['closed', '']));
  });
  await page.exposeFunction('tell', (name, data) => page.told.add([name, data]));
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  page.next = (name) => page.told.find(([told]) => told === name, `"${name}"`).then(([, data]) => data);
  page.all = (name) => page.told.all.filter(([told]) => told === name).map(([, data]) => data);
  return page;
}

const settings = () => ({ key: APP.key, port: server.port });

/** A page whose pusher-js has subscribed to `channel` and tells each "hello" and "last". */
async function pusherPage(channel, transport = 'ws', user = 'nobody') {
  const page = await open();
  await page.evaluate(({ key, port, channel, transport, user }) => {
    window.pusher = new window.Pusher(key, {
      wsHost: '127.0.0.1',
      wsPort: port,
      httpHost: '127.0.0.1',
      httpPort: port,
      forceTLS: false,
      enabledTransports: [transport],
      cluster: 'none',
      channelAuthorization: { endpoint: '/broadcasting/auth', transport: 'ajax', params: { user } },
      userAuthentication: { endpoint: '/broadcasting/user-auth', transport: 'ajax', params: { user } },
    });
    window.pusher.connection.bind('error', (error) => console.error(`pusher-js: ${JSON.stringify(error)}`));
    window.channel = window.pusher.subscribe(channel);
    window.channel.bind('pusher:subscription_succeeded', () => window.tell('subscribed', window.pusher.connection.socket_id));
    window.channel.bind('pusher:subscription_error', (error) => console.error(`subscription: ${JSON.stringify(error)}`));
    window.channel.bind('hello', (data) => window.tell('hello', data));
    window.channel.bind('last', (data) => window.tell('last', data));
    window.channel.bind('client-typing', (data) => window.tell('typing', data));
    window.channel.bind('pusher:member_added', (member) => window.tell('added', member));
    window.channel.bind('pusher:member_removed', (member) => window.tell('removed', member));
    window.channel.bind('pusher:cache_miss', () => window.tell('miss', null));
    window.pusher.user.bind('letter', (data) => window.tell('letter', data));
    for (const state of ['online', 'offline']) window.pusher.user.watchlist.bind(state, ({ user_ids }) => window.tell(state, user_ids));
  }, { ...settings(), channel, transport, user });
  page.socketId = await page.next('subscribed');
  return page;
}

/** A page whose laravel-echo, by the connector `broadcaster`, has joined the private channel `name`. */
async function echoPage(broadcaster, name, user = 'nobody') {
  const page = await open();
  await page.evaluate(({ key, port, broadcaster, name, user }) => {
    window.echo = new window.Echo.default({
      broadcaster,
      key,
      wsHost: '127.0.0.1',
      wsPort: port,
      wssPort: port,
      forceTLS: false,
      enabledTransports: ['ws'],
      cluster: 'none',
      auth: { headers: {}, params: { user } },
    });
    window.room = window.echo.private(name);
    window.room.subscribed(() => window.tell('subscribed', window.echo.socketId()));
    window.room.error((error) => window.tell('refused', error));
    window.room.listen('.hello', (data) => window.tell('hello', data));
    window.room.listen('OrderShipped', (data) => window.tell('shipped', data));
    window.room.listenForWhisper('typing', (data) => window.tell('whisper', data));
  }, { ...settings(), broadcaster, name, user });
  page.socketId = await page.next('subscribed');
  return page;
}

describe('pusher-js in Chromium', () => {
  for (const channel of ['browser-room', 'private-browser-room']) {
    test(`three pages receive what is published to ${channel}, once and in order`, async () => {
      const pages = await Promise.all([1, 2, 3].map(() => pusherPage(channel)));
      for (let n = 0; n < 50; n += 1) await back.trigger(channel, 'hello', { n, text: 'Grüße 🚀' });
      await back.trigger(channel, 'last', {});
      for (const page of pages) {
        await page.next('last');
        assert.deepEqual(page.all('hello'), Array.from({ length: 50 }, (_, n) => ({ n, text: 'Grüße 🚀' })));
      }
    });
  }

  test('a long event is compressed once for all pages, which read it together with who takes it plain', async () => {
    const pages = await Promise.all([1, 2, 3].map(() => pusherPage('browser-long')));
    const plain = await Raw.connect(server);
    plain.send({ event: 'pusher:subscribe', data: { channel: 'browser-long' } });
    await plain.frames.find(({ event }) => event === 'pusher_internal:subscription_succeeded', 'an answer to subscribing');
    const before = await server.count('outpour_deflates_total');
    const sent = Array.from({ length: 20 }, (_, n) => ({ n, text: 'Grüße 🚀 '.repeat(n % 2 ? 400 : 1) }));
    for (const data of sent) await back.trigger('browser-long', 'hello', data);
    await back.trigger('browser-long', 'last', {});
    for (const page of pages) {
      await page.next('last');
      assert.deepEqual(page.all('hello'), sent);
    }
    await plain.frames.find(({ event }) => event === 'last', 'the last event');
    plain.end();
    assert.deepEqual(plain.frames.all.filter(({ event }) => event === 'hello').map(({ data }) => JSON.parse(data)), sent);
    assert.equal(await server.count('outpour_deflates_total'), before + 10);
  });

  test('the page named by socket_id is left out', async () => {
    const [self, other] = [await pusherPage('browser-exclude'), await pusherPage('browser-exclude')];
    await back.trigger('browser-exclude', 'hello', { n: 1 }, { socket_id: self.socketId });
    await back.trigger('browser-exclude', 'last', {});
    for (const page of [self, other]) await page.next('last');
    assert.deepEqual([self.all('hello'), other.all('hello')], [[], [{ n: 1 }]]);
  });

  test('a page stays connected over several activity timeouts', async () => {
    const page = await pusherPage('browser-idle');
    for (let round = 0, from = 0; round < 3; round += 1) {
      const ping = ([way, text]) => way === 'sent' && JSON.parse(text).event === 'pusher:ping';
      const pong = ([way, text]) => way === 'received' && JSON.parse(text).event === 'pusher:pong';
      await page.socketFrames.find(ping, 'a ping', undefined, from);
      const asked = page.socketFrames.all.findIndex((frame, index) => index >= from && ping(frame));
      await page.socketFrames.find(pong, 'a pong', undefined, asked);
      from = page.socketFrames.all.findIndex((frame, index) => index >= asked && pong(frame)) + 1;
    }
    assert.equal(await page.evaluate(() => window.pusher.connection.state), 'connected');
    assert.equal(await page.evaluate(() => window.pusher.connection.socket_id), page.socketId);
    assert.ok(page.socketFrames.all.every(([way]) => way !== 'closed'));
    await back.trigger('browser-idle', 'last', {});
    await page.next('last');
  });

  test('a page that goes away leaves the others untouched', async () => {
    const pages = await Promise.all([1, 2, 3].map(() => pusherPage('browser-leave')));
    await back.trigger('browser-leave', 'hello', { n: 1 });
    await pages[0].next('hello');
    await pages[0].close();
    await back.trigger('browser-leave', 'last', {});
    for (const page of pages.slice(1)) {
      await page.next('last');
      assert.deepEqual(page.all('hello'), [{ n: 1 }]);
    }
  });
});

describe('pusher-js in Chromium that resumes', () => {
  let kept;
  let publisher;
  let lines;
  before(async () => {
    lines = [];
    kept = await Server.start({ shards: 2, config: 'retained_channels = "kept-* private-kept-*"\nretention_messages_max = 40\n' });
    publisher = library(kept);
  });
  after(async () => {
    lines?.forEach((line) => line.close());
    publisher?.hangUp();
    await kept?.close();
  });

  /** A page that has loaded the file from the server, on a line of its own. */
  async function recoveringPage(channel, transport = 'ws') {
    const line = await Line.to(kept.port);
    lines.push(line);
    const page = await open();
    await page.addScriptTag({ url: `${kept.url}/outpour/1/recovery.js` });
    await page.evaluate(({ key, port, channel, transport }) => {
      window.pusher = window.Outpour.recover(new window.Pusher(key, {
        wsHost: '127.0.0.1',
        wsPort: port,
        httpHost: '127.0.0.1',
        httpPort: port,
        forceTLS: false,
        enabledTransports: [transport],
        cluster: 'none',
        channelAuthorization: { endpoint: '/broadcasting/auth', transport: 'ajax', params: { user: 'nobody' } },
      }));
      window.pusher.connection.bind('state_change', ({ current }) => window.tell('state', current));
      window.pusher.bind('outpour:gap', (gap) => window.tell('gap', gap));
      const room = window.pusher.subscribe(channel);
      room.bind('pusher:subscription_succeeded', () => window.tell('subscribed', null));
      room.bind('hello', ({ n }) => window.tell('hello', n));
    }, { key: APP.key, port: line.port, channel, transport });
    await page.next('subscribed');
    const hello = (n) => page.told.find(([name, data]) => name === 'hello' && data === n, `event ${n}`);
    const cut = async () => {
      const from = page.told.length;
      line.cut();
      await page.told.find(([name, data]) => name === 'state' && data === 'connecting', 'that it is away', undefined, from);
    };
    return { page, line, hello, cut };
  }

  const publish = async (channel, from, to) => {
    for (let n = from; n <= to; n += 1) await publisher.trigger(channel, 'hello', { n });
  };
  const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

  for (const [channel, transport] of [['kept-room', 'ws'], ['private-kept-room', 'ws'], ['kept-sockjs', 'sockjs']]) {
    test(`a page that loses its connection has every event of ${channel} over ${transport} once and in order`, async () => {
      const { page, line, hello, cut } = await recoveringPage(channel, transport);
      await publish(channel, 1, 10);
      for (let published = 10; published < 50; published += 20) {
        await hello(published);
        await cut();
        await publish(channel, published + 1, published + 10);
        line.mend();
        await publish(channel, published + 11, published + 20);
      }
      await hello(50);
      assert.deepEqual(page.all('hello'), numbers(1, 50));
      assert.deepEqual(page.all('gap'), []);
      // A browser says of every request that it failed when the line was cut.
      if (transport !== 'ws') complaints = complaints.filter((complaint) => !complaint.includes('net::ERR_'));
    });
  }

  test('a page that comes back too late is told what it misses', async () => {
    const channel = 'kept-late';
    const { page, line, hello, cut } = await recoveringPage(channel);
    await publish(channel, 1, 3);
    await hello(3);
    await cut();
    await publish(channel, 4, 100);
    line.mend();
    await hello(100);
    const gaps = page.all('gap');
    assert.deepEqual(gaps, [{ channel, epoch: gaps[0]?.epoch, from: 4, to: 60, reason: 'evicted' }]);
    assert.deepEqual(page.all('hello'), [...numbers(1, 3), ...numbers(61, 100)]);
  });
});

for (const transport of ['xhr_streaming', 'xhr_polling', 'sockjs']) {
  describe(`pusher-js in Chromium over ${transport}`, () => {
    for (const channel of ['http-room', 'private-http-room']) {
      test(`two pages and a WebSocket receive what is published to ${channel}, once and in order`, async () => {
        const pages = await Promise.all([transport, transport, 'ws'].map((way) => pusherPage(channel, way)));
        // Some 700 KB: streams are reopened on the way.
        for (let n = 0; n < 600; n += 10) {
          await back.triggerBatch(Array.from({ length: 10 }, (_, k) => ({ channel, name: 'hello', data: { n: n + k, text: 'Grüße 🚀'.repeat(20) } })));
        }
        await back.trigger(channel, 'last', {});
        for (const page of pages) {
          await page.next('last');
          assert.deepEqual(page.all('hello').map(({ n }) => n), Array.from({ length: 600 }, (_, n) => n));
          assert.equal(page.all('hello')[0].text, 'Grüße 🚀'.repeat(20));
        }
      });
    }

    test('client events go both ways, and not back to their sender', async () => {
      const [self, other] = [await pusherPage('private-http-chat', transport), await pusherPage('private-http-chat', 'ws')];
      await self.evaluate(() => window.channel.trigger('client-typing', { from: 'self' }));
      assert.deepEqual(await other.next('typing'), { from: 'self' });
      await other.evaluate(() => window.channel.trigger('client-typing', { from: 'other' }));
      assert.deepEqual(await self.next('typing'), { from: 'other' });
      await back.trigger('private-http-chat', 'last', {});
      for (const page of [self, other]) await page.next('last');
      assert.deepEqual([self.all('typing'), other.all('typing')], [[{ from: 'other' }], [{ from: 'self' }]]);
    });
  });
}

for (const transport of ['ws', 'xhr_streaming', 'xhr_polling', 'sockjs']) {
  describe(`members, caches and users in Chromium over ${transport}`, () => {
    test('pages of a presence channel see who is there, who comes and who goes', async () => {
      const name = `presence-page-${transport}`;
      const ann = await pusherPage(name, transport, 'ann');
      const bob = await pusherPage(name, transport === 'ws' ? 'xhr_streaming' : 'ws', 'bob');
      assert.deepEqual(await ann.next('added'), { id: 'bob', info: { name: 'Name of bob' } });
      const members = (page) => page.evaluate(() => ({ count: window.channel.members.count, all: window.channel.members.members, me: window.channel.members.me.id }));
      const all = { ann: { name: 'Name of ann' }, bob: { name: 'Name of bob' } };
      assert.deepEqual([await members(ann), await members(bob)], [{ count: 2, all, me: 'ann' }, { count: 2, all, me: 'bob' }]);
      await ann.evaluate(() => window.pusher.disconnect());
      assert.deepEqual(await bob.next('removed'), { id: 'ann', info: { name: 'Name of ann' } });
    });

    test('a page that comes late is told the last event of a cache channel', async () => {
      const name = `private-cache-page-${transport}`;
      const early = await pusherPage(name, transport);
      await early.next('miss');
      await back.trigger(name, 'hello', { n: 1 });
      await back.trigger(name, 'last', { n: 2 });
      await early.next('last');
      const late = await pusherPage(name, transport);
      assert.deepEqual(await late.next('last'), { n: 2 });
      assert.deepEqual([early.all('hello'), late.all('hello'), late.all('miss')], [[{ n: 1 }], [], []]);
    });

    test('a page signs in, is written to and is told of those whom it watches', async () => {
      const page = await pusherPage(`user-room-${transport}`, transport, `page-user-${transport}`);
      await page.evaluate(() => window.pusher.signin());
      assert.deepEqual(await page.next('offline'), ['page-friend']);
      await back.sendToUser(`page-user-${transport}`, 'letter', { text: 'Grüße' });
      assert.deepEqual(await page.next('letter'), { text: 'Grüße' });
      const friend = await pusherPage(`user-room-${transport}`, 'ws', 'page-friend');
      await friend.evaluate(() => window.pusher.signin());
      assert.deepEqual(await page.next('online'), ['page-friend']);
    });
  });
}

describe('EventSource in Chromium', () => {
  test('a page reads a signed channel in order', async () => {
    const page = await open();
    const url = `/apps/${APP.id}/channels/private-page-news/events`;
    const query = back.createSignedQueryString({ method: 'GET', path: url, params: {} });
    await page.evaluate((source) => {
      window.source = new EventSource(source);
      window.source.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        window.tell(message.event, message.data);
      };
      window.source.onerror = () => console.error('the EventSource failed');
    }, `${server.url}${url}?${query}`);
    await page.next('pusher_internal:subscription_succeeded');
    for (let n = 0; n < 50; n += 1) await back.trigger('private-page-news', 'hello', { n, text: 'Grüße 🚀' });
    await back.trigger('private-page-news', 'last', {});
    await page.next('last');
    assert.deepEqual(page.all('hello').map((data) => JSON.parse(data).n), Array.from({ length: 50 }, (_, n) => n));
    await page.evaluate(() => window.source.close());
  });
});

for (const broadcaster of ['pusher', 'reverb']) {
  describe(`laravel-echo in Chromium, connector "${broadcaster}"`, () => {
    test('a private channel receives events, by name and by class', async () => {
      const page = await echoPage(broadcaster, 'orders.1');
      await back.trigger('private-orders.1', 'hello', { n: 1 });
      await back.trigger('private-orders.1', 'App\\Events\\OrderShipped', { order: 7 });
      assert.deepEqual(await page.next('hello'), { n: 1 });
      assert.deepEqual(await page.next('shipped'), { order: 7 });
    });

    test('whispers go both ways, and not back to the whisperer', async () => {
      const [left, right] = [await echoPage(broadcaster, 'chat.1'), await echoPage(broadcaster, 'chat.1')];
      await left.evaluate(() => window.room.whisper('typing', { from: 'left' }));
      assert.deepEqual(await right.next('whisper'), { from: 'left' });
      await right.evaluate(() => window.room.whisper('typing', { from: 'right' }));
      assert.deepEqual(await left.next('whisper'), { from: 'right' });
      await back.trigger('private-chat.1', 'hello', {});
      for (const page of [left, right]) await page.next('hello');
      assert.deepEqual([left.all('whisper'), right.all('whisper')], [[{ from: 'right' }], [{ from: 'left' }]]);
    });

    test('a presence channel tells who is here, who joins and who leaves', async () => {
      const name = `team.${broadcaster}`;
      const join = async (user) => {
        const page = await echoPage(broadcaster, `of.${user}`, user);
        await page.evaluate((name) => {
          window.team = window.echo.join(name).here((members) => window.tell('here', members)).joining((member) => window.tell('joining', member)).leaving((member) => window.tell('leaving', member));
        }, name);
        page.here = await page.next('here');
        return page;
      };
      const ann = await join('ann');
      assert.deepEqual(ann.here, [{ name: 'Name of ann' }]);
      const bob = await join('bob');
      assert.deepEqual(bob.here.map((member) => member.name).sort(), ['Name of ann', 'Name of bob']);
      assert.deepEqual(await ann.next('joining'), { name: 'Name of bob' });
      await bob.evaluate((name) => window.echo.leave(name), name);
      assert.deepEqual(await ann.next('leaving'), { name: 'Name of bob' });
    });

    test('toOthers leaves the page out that caused the event', async () => {
      const [self, other] = [await echoPage(broadcaster, 'chat.2'), await echoPage(broadcaster, 'chat.2')];
      await back.trigger('private-chat.2', 'App\\Events\\OrderShipped', { order: 1 }, { socket_id: self.socketId });
      await back.trigger('private-chat.2', 'hello', {});
      for (const page of [self, other]) await page.next('hello');
      assert.deepEqual([self.all('shipped'), other.all('shipped')], [[], [{ order: 1 }]]);
    });
  });
}
