// Waits that end: every one has a bound, and says what did not happen when it is reached.
//
// Nothing here sleeps to "let things settle". Where a suite must show that something did NOT arrive, it sends a marker
// afterwards on the same channel and waits for that: a channel has one order.

export const PATIENCE_MS = Number(process.env.TEST_PATIENCE_MS ?? 20_000);

/** The value of `promise`, or an error that names `what` after `ms`. */
export function within(promise, what, ms = PATIENCE_MS) {
  let timer;
  const bound = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`)), ms);
  });
  return Promise.race([promise, bound]).finally(() => clearTimeout(timer));
}

/** Things in the order in which they arrived, and waits for more of them. */
export class Arrivals {
  constructor(name) {
    this.name = name;
    this.all = [];
    this.waiting = [];
    this.over = null;
  }

  add(thing) {
    this.all.push(thing);
    this.waiting = this.waiting.filter((wait) => !wait());
  }

  /** Nothing more will come, because of `reason`: waits that are open fail now, and so do later ones. */
  end(reason) {
    this.over ??= reason;
    for (const wait of this.waiting.splice(0)) wait();
  }

  get length() {
    return this.all.length;
  }

  /** Waits until `count` things are there, and returns the first `count`. */
  async first(count, ms) {
    await this.until(() => this.all.length >= count, () => `${count} of ${this.name}, got ${this.all.length}`, ms);
    return this.all.slice(0, count);
  }

  /** Waits for a thing for which `matches` holds, and returns the first such thing from index `from` on. */
  async find(matches, what, ms, from = 0) {
    const seek = () => this.all.findIndex((thing, index) => index >= from && matches(thing));
    await this.until(() => seek() >= 0, () => `${what} in ${this.name}, got ${show(this.all.slice(from))}`, ms);
    return this.all[seek()];
  }

  until(holds, what, ms) {
    const arrived = new Promise((resolve, reject) => {
      const wait = () => {
        if (holds()) resolve();
        else if (this.over) reject(new Error(`${this.over} before ${typeof what === 'function' ? what() : what}`));
        else return false;
        return true;
      };
      if (!wait()) this.waiting.push(wait);
    });
    return within(arrived, what, ms);
  }
}

function show(things) {
  const text = JSON.stringify(things.slice(-20));
  return text.length > 2_000 ? `${text.slice(0, 2_000)}...` : text;
}
