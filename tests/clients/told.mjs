// What the suites of webhooks and of hooks share: servers whose app tells others over HTTP, and who is told.

import assert from 'node:assert/strict';
import { library, pusherJs } from './clients.mjs';
import { Receiver } from './receiver.mjs';
import { APP, Server } from './server.mjs';

/** What is to be closed at the end, in the opposite order. */
export const opened = [];

export async function closeAll() {
  for (const close of opened.reverse()) await close();
}

const text = (value) => {
  if (Array.isArray(value)) return `[${value.map(text).join(', ')}]`;
  if (typeof value === 'object') return `{ ${Object.entries(value).map(([key, one]) => `${key} = ${text(one)}`).join(', ')} }`;
  return JSON.stringify(value);
};
const lines = (table) => Object.entries(table).map(([key, value]) => `${key} = ${text(value)}\n`).join('');

/** A server whose app has these webhooks and this hook, with settings that stand before the app, and in it, and tables of channels. */
export async function serverWith(webhooks, settings = '', hook = undefined, own = {}, channels = []) {
  const app = `[[apps]]\nid = "${APP.id}"\nkey = "${APP.key}"\nsecret = "${APP.secret}"\nclient_events = true\nclient_events_per_second_max = 1000\n${lines(own)}`;
  const tables = [...channels.map((channel) => `[[apps.channels]]\n${lines(channel)}`), ...webhooks.map((webhook) => `[[apps.webhooks]]\n${lines(webhook)}`)].join('');
  const seen = hook ? `[apps.before_publish]\n${lines(hook)}` : '';
  const server = await Server.start({ shards: 2, config: `${settings}\n${app}${tables}${seen}` });
  opened.push(() => server.close());
  return server;
}

export async function receiverThat(behave, tls) {
  const receiver = await Receiver.start(behave, tls);
  opened.push(() => receiver.close());
  return receiver;
}

/** A pusher-js client whose private and presence subscriptions are authorized, as this user in the latter. */
export function client(server, user = { user_id: 'ann' }) {
  const back = library(server);
  const customHandler = ({ socketId, channelName }, callback) => callback(null, back.authorizeChannel(socketId, channelName, channelName.startsWith('presence-') ? user : undefined));
  const made = pusherJs(server, { channelAuthorization: { customHandler } });
  opened.push(() => {
    made.disconnect();
    back.hangUp();
  });
  return made;
}

export const named = (name, channel) => (event) => event.name === name && event.channel === channel;
export const fields = ({ request, ...event }) => event;

/** A value of the server's metrics that belongs to the edge or, summed, to its shards. */
export async function metric(server, name) {
  const exposition = await (await fetch(`${server.url}/metrics`)).text();
  const samples = exposition.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  assert.notEqual(samples.length, 0, `${name} is served`);
  return samples.reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
}

/** Waits until the metric holds; it is read again and again, as nothing tells of its change. */
export async function until(server, name, holds) {
  const end = Date.now() + 20_000;
  for (;;) {
    const value = await metric(server, name);
    if (holds(value)) return value;
    if (Date.now() > end) throw new Error(`${name} is ${value}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
