// A server for a group of tests, with the clients that the group made; all of it ends with the group.

import { randomBytes } from 'node:crypto';
import { after, before, beforeEach } from 'node:test';
import { authorizer, events, library, pusherJs, Raw } from './clients.mjs';
import { Server } from './server.mjs';

export function group(settings) {
  const made = { clients: [], backs: [] };
  before(async () => {
    made.server = await Server.start(settings);
    made.back = made.library();
  });
  beforeEach(async () => {
    made.server.assertAlive();
    if (made.server.isStopped) await made.server.start();
  });
  after(async () => {
    for (const client of made.clients) (client.disconnect ?? client.end).call(client);
    for (const back of made.backs) back.hangUp();
    await made.server?.close();
  });
  made.library = (options) => keep(made.backs, library(made.server, options));
  made.join = async (options = {}, prepare = (client) => client) => {
    const client = prepare(pusherJs(made.server, { channelAuthorization: authorizer(made.back), ...options }));
    made.clients.push(client);
    await client.states.find((state) => state === 'connected', 'connected');
    return client;
  };
  made.raw = async (query, options) => keep(made.clients, await Raw.connect(made.server, query, options));
  made.rawAt = (path) => keep(made.clients, new Raw(made.server, path));
  return made;
}

export function keep(list, thing) {
  list.push(thing);
  return thing;
}

/** Publishes a marker and waits until the channel has it: everything published before has been delivered or never will. */
export async function mark(back, channel) {
  const name = `marker-${randomBytes(4).toString('hex')}`;
  await back.trigger(channel.name, name, {});
  await channel.arrivals.find(([event]) => event === name, `the marker ${name}`);
  return events(channel).filter(([event]) => !event.startsWith('marker-'));
}
