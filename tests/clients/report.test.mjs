// The page that `outpour bench report` draws of a kept result, in headless Chromium: it asks for nothing, complains of
// nothing, draws every point, and shows values under the pointer and under the arrow keys.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';
import { within } from './bounded.mjs';
import { BINARY } from './server.mjs';

const RESULT = path.join(path.dirname(fileURLToPath(import.meta.url)), 'result.json');

let directory;
let browser;
let page;
const complaints = [];
const requests = [];

before(async () => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'outpour-report-'));
  const file = path.join(directory, 'report.html');
  execFileSync(BINARY, ['bench', 'report', RESULT, '--report', file], { stdio: 'pipe' });
  browser = await within(
    chromium.launch({
      executablePath: process.env.TEST_CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      chromiumSandbox: false,
      args: ['--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    }),
    'Chromium to start',
    60_000,
  );
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => requests.push(request.url()));
  await page.goto(pathToFileURL(file).href);
});
after(async () => {
  await browser?.close();
  if (directory) rmSync(directory, { recursive: true, force: true });
});

const chart = (id) => page.locator(`figure#${id}`);

/** How many points each series of a chart has, in the drawing itself. */
const drawn = (id) =>
  chart(id).locator('g.series').evaluateAll((groups) =>
    Object.fromEntries(
      groups.map((group) => {
        const line = group.querySelector('path.line');
        const points = line ? line.getAttribute('d').match(/[ML]/g).length : group.querySelectorAll('.dot, .cross, .ring').length;
        return [group.dataset.name, points];
      }),
    ),
  );

test('the page asks for nothing but itself and complains of nothing', () => {
  assert.deepEqual(complaints, []);
  const foreign = requests.slice(1).filter((url) => !url.startsWith('data:'));
  assert.deepEqual(foreign, []);
});

test('every point of the result is drawn', async () => {
  const { steps, storms, memory } = JSON.parse(readFileSync(RESULT, 'utf8'));
  const seconds = steps.reduce((sum, { timeline }) => sum + timeline.length, 0);
  assert.deepEqual(await drawn('throughput'), { delivered: seconds, due: seconds });
  assert.deepEqual(await drawn('lag'), { behind: seconds });
  assert.deepEqual(await drawn('latency-time'), { p50: seconds, p99: seconds });
  assert.deepEqual(await drawn('cores'), { 'core 0 (server)': seconds, 'core 1 (generator)': seconds });
  const kept = steps.filter(({ outcome }) => outcome === 'kept').length;
  assert.deepEqual(await drawn('loads'), { kept, missed: steps.length - kept, knee: 1 });
  assert.deepEqual(await drawn('storms'), { connect: storms[0].progress.length, reconnect: storms[1].progress.length });
  const readings = memory.readings.length;
  assert.deepEqual(await drawn('memory'), { server: readings, generator: readings, 'kernel, both ends': readings });
  assert.deepEqual(Object.keys(await drawn('latency')), ['first subscriber', 'median subscriber', 'last subscriber', 'delivery']);
});

test('no label of an axis runs into another', async () => {
  const clashes = await page.locator('figure.chart > svg').evaluateAll((drawings) =>
    drawings.flatMap((drawing) => {
      const boxes = [...drawing.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
      const isClash = (a, b) => a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom;
      return boxes.flatMap(([one, a], index) => boxes.slice(index + 1).filter(([, b]) => isClash(a, b)).map(([other]) => [one, other]));
    }),
  );
  assert.deepEqual(clashes, []);
});

test('every drawing has a title and a description', async () => {
  const drawings = page.locator('figure.chart > svg[role=img]');
  const count = await drawings.count();
  assert.equal(count, await page.locator('figure.chart').count());
  for (let index = 0; index < count; index += 1) {
    const named = await drawings.nth(index).evaluate((drawing) => drawing.getAttribute('aria-labelledby').split(' ').map((id) => document.getElementById(id)?.textContent ?? ''));
    assert.ok(named.every((text) => text.length > 0), named.join());
  }
});

test('values are shown under the pointer and under the arrow keys', async () => {
  const tip = chart('latency-time').locator('.tip');
  assert.equal(await tip.isVisible(), false);
  const drawing = chart('latency-time').locator(':scope > svg');
  await drawing.scrollIntoViewIfNeeded();
  const box = await drawing.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  assert.match(await tip.textContent(), /^\d+ sp50: [\d.]+ .?sp99: [\d.]+ .?s$/);
  await page.mouse.move(box.x + box.width / 2, box.y - 40);
  assert.equal(await tip.isVisible(), false);
  await drawing.focus();
  await page.keyboard.press('ArrowRight');
  const first = await tip.textContent();
  await page.keyboard.press('ArrowRight');
  assert.notEqual(await tip.textContent(), first);
  assert.deepEqual(complaints, []);
});

test('a dark page is dark', async () => {
  const ink = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.emulateMedia({ colorScheme: 'light' });
  const light = await ink();
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.notEqual(await ink(), light);
});
