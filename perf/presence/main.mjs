// What a large roster costs: clients join one presence channel, 50 at a time, until all are members. Everybody who is there
// is told of everybody who comes, so N members take N * (N - 1) / 2 deliveries, and N rosters.
//
//   tests/run install build; node perf/presence/main.mjs [MEMBERS]
//
// The clients are one process on the server's cores, and read every message: the seconds are theirs, the turns are the server's.

import { createHmac } from 'node:crypto';
import WebSocket from '../../tests/clients/node_modules/ws/wrapper.mjs';
import { APP, Server } from '../../tests/clients/server.mjs';

const MEMBERS = Number(process.argv[2] ?? 10_000);
const AT_ONCE = 50;
const CHANNEL = 'presence-roster';

const server = await Server.start({ shards: 2, config: `presence_members_max = ${MEMBERS}\n` });
const sign = (text) => `${APP.key}:${createHmac('sha256', APP.secret).update(text).digest('hex')}`;
const sockets = [];
const seen = { rosters: 0, added: 0, other: 0, bytes: 0 };

function join(number) {
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/app/${APP.key}?protocol=7`, { perMessageDeflate: false });
  sockets.push(socket);
  return new Promise((resolve) => socket.on('message', (bytes) => {
    seen.bytes += bytes.length;
    const head = bytes.toString('utf8', 0, 80);
    if (head.includes('member_added')) seen.added += 1;
    else if (head.includes('subscription_succeeded')) {
      seen.rosters += 1;
      resolve();
    } else if (head.includes('connection_established')) {
      const { socket_id: id } = JSON.parse(JSON.parse(bytes).data);
      const data = JSON.stringify({ user_id: `u${number}`, user_info: { name: `n${number}` } });
      const auth = sign(`${id}:${CHANNEL}:${data}`);
      socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { channel: CHANNEL, auth, channel_data: data } }));
    } else seen.other += 1;
  }));
}

const began = performance.now();
for (let first = 0; first < MEMBERS; first += AT_ONCE) {
  const count = Math.min(AT_ONCE, MEMBERS - first);
  await Promise.all(Array.from({ length: count }, (_, place) => join(first + place)));
}
const due = (MEMBERS * (MEMBERS - 1)) / 2;
const end = performance.now() + 60_000;
while (seen.added < due && performance.now() < end) await new Promise((resolve) => setTimeout(resolve, 50));
const seconds = (performance.now() - began) / 1000;
const metrics = await (await fetch(`${server.url}/metrics`)).text();
for (const socket of sockets) socket.terminate();
await server.close();

console.log(`${MEMBERS} members in ${seconds.toFixed(1)} s: ${seen.rosters} rosters, ${seen.added} of ${due} arrivals told, ${seen.other} other messages, ${(seen.bytes / 1e6).toFixed(0)} MB`);
for (const line of metrics.split('\n')) {
  if (/^outpour_(encodes_total|sends_total|short_sends_total|slow_closed_total|longest_turn_us|turn_seconds)/.test(line)) console.log(line);
}
process.exitCode = seen.added === due && seen.rosters === MEMBERS && seen.other === 0 ? 0 : 1;
