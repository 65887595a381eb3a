// The built server as a process: started with given flags on a free port, ready when it says so, always stopped.
//
// BINARY_UNDER_TEST names another binary than target/release/outpour. The spelling of flags is in `argumentsFor` alone, so
// that a renamed setting is one change.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { within } from './bounded.mjs';

const REPOSITORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const BINARY = process.env.BINARY_UNDER_TEST ?? path.join(REPOSITORY, 'target/release/outpour');
const START_MS = 20_000;

/** How long a drain may take: clients are told to come back paced and jittered, but within a set time. */
export const DRAIN_MS = 30_000;

/** The app that a server without configuration has. */
export const APP = { id: '1001', key: 'app-key', secret: 'app-secret' };

const running = new Set();
process.on('exit', () => {
  for (const server of running) server.child?.kill('SIGKILL');
});
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(1));

export class Server {
  /** `settings`: shards, activityTimeout (seconds), clientEvents and compression (bool), config (the text of a configuration file). */
  static async start(settings = {}) {
    const server = new Server();
    server.settings = settings;
    server.port = await freePort();
    server.directory = mkdtempSync(path.join(os.tmpdir(), 'outpour-clients-'));
    await server.start();
    return server;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What a metric counts, over all shards. */
  async count(metric) {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const samples = [...text.matchAll(new RegExp(`^${metric}\\{.*\\} (\\d+)$`, 'gm'))];
    if (samples.length === 0) throw new Error(`no metric is called ${metric}`);
    return samples.reduce((sum, [, value]) => sum + Number(value), 0);
  }

  async start() {
    this.output = '';
    const child = spawn(BINARY, argumentsFor(this.port, this.settings, this.directory), { env: environment(), stdio: ['ignore', 'pipe', 'pipe'] });
    this.child = child;
    running.add(this);
    child.stdout.on('data', (bytes) => (this.output += bytes));
    child.stderr.on('data', (bytes) => (this.output += bytes));
    this.ended = new Promise((resolve) => {
      child.on('error', (error) => resolve({ code: null, signal: null, error }));
      child.on('exit', (code, signal) => resolve({ code, signal }));
    });
    const says = this.tells(`listens on 127.0.0.1:${this.port}`);
    const end = this.ended.then(({ code, signal, error }) => {
      throw new Error(`${BINARY} ended before it listened: code ${code}, signal ${signal} ${error ?? ''}\n${this.output}`);
    });
    await within(Promise.race([says, end]), () => `${BINARY} to say that it listens on ${this.port}\n${this.output}`, START_MS);
    end.catch(() => {});
    // What it says is true.
    const socket = net.connect(this.port, '127.0.0.1');
    await within(once(socket, 'connect'), `a connection to ${this.port}`);
    socket.destroy();
  }

  /** Resolves when the server has written `words`. */
  tells(words) {
    return new Promise((resolve) => {
      const look = () => this.output.includes(words) && resolve();
      look();
      this.child.stdout.on('data', look);
      this.child.stderr.on('data', look);
    });
  }

  /** As `tells`, with a bound. */
  says(words) {
    return within(this.tells(words), () => `the server to say "${words}"\n${this.output}`);
  }

  /** Sends `signal` and waits for the end; the outcome has `code`, `signal` and `ms`. */
  async stop(signal = 'SIGKILL', ms = DRAIN_MS) {
    const began = performance.now();
    this.child.kill(signal);
    const outcome = await within(this.ended, () => `the server to end after ${signal}\n${this.output}`, ms);
    running.delete(this);
    return { ...outcome, ms: performance.now() - began };
  }

  get isStopped() {
    return !running.has(this);
  }

  /** Throws when the server has ended by itself, so that a crash fails the next test and not every wait after it. */
  assertAlive() {
    const { exitCode, signalCode } = this.child;
    if (running.has(this) && (exitCode !== null || signalCode !== null)) {
      throw new Error(`the server died: code ${exitCode}, signal ${signalCode}\n${this.output}`);
    }
  }

  /** For `after` hooks: ends the server whatever state it is in, and reports one that died by itself. */
  async close() {
    rmSync(this.directory, { recursive: true, force: true });
    this.assertAlive();
    if (running.has(this)) await this.stop('SIGKILL');
  }
}

/** Ours without the server's own variables: a suite says what it wants by flags. */
function environment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('OUTPOUR_')));
}

function argumentsFor(port, settings, directory) {
  const words = ['serve', '--address', `127.0.0.1:${port}`];
  if (settings.shards !== undefined) words.push('--shards', String(settings.shards));
  if (settings.activityTimeout !== undefined) words.push('--activity-timeout-s', String(settings.activityTimeout));
  if (settings.compression !== undefined) words.push('--compression', settings.compression ? 'on' : 'off');
  if (settings.clientEvents !== undefined) words.push('--client-events', settings.clientEvents ? 'on' : 'off');
  if (settings.config !== undefined) {
    const file = path.join(directory, 'outpour.toml');
    writeFileSync(file, settings.config);
    words.push('--config', file);
  }
  return words;
}

/**
 * A port that nobody has, below the range from which the kernel takes the local ports of outgoing connections: there, a
 * client that reconnects to a stopped server could get the server's own port.
 */
export async function freePort() {
  const [low] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/).map(Number);
  const first = Math.min(15_000, low - 5_000);
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = first + Math.floor(Math.random() * (low - first));
    if (await isFree(port)) return port;
  }
  throw new Error('no free port in 100 attempts');
}

async function isFree(port) {
  const probe = net.createServer();
  try {
    probe.listen(port, '127.0.0.1');
    await once(probe, 'listening');
    return true;
  } catch {
    return false;
  } finally {
    probe.close();
  }
}
