// emmett, put to the same work: `URL append WRITERS MILLISECONDS`, or `URL load EVENTS MILLISECONDS`. Prints one line of
// JSON about the calls that it made.

import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const MESSAGE =
  'reading the files of the part that was given to this attempt, one after the other, and counting what is found in them';
const FILL_EVENTS = 500;

const progressed = (version) => ({
  type: 'progressed',
  data: { message: MESSAGE, progress: version, total: 10000, note: version.toString(16).padStart(32, '0') },
});

// Lets so many writers append one event after the other, each to a stream of its own.
async function append(store, writers, ms) {
  const times = [];
  const begun = performance.now();
  const write = async (number) => {
    const stream = `task-${process.pid}-${number}`;
    for (let version = 1; ; version += 1) {
      const start = performance.now();
      if (start >= begun + ms) return;
      const expectedStreamVersion = version === 1 ? 'STREAM_DOES_NOT_EXIST' : BigInt(version - 1);
      await store.appendToStream(stream, [progressed(version)], { expectedStreamVersion });
      times.push(performance.now() - start);
    }
  };
  await Promise.all(Array.from({ length: writers }, (_, number) => write(number)));
  tell(times, performance.now() - begun);
}

// Reads a stream of so many events again and again; makes it first where there is none.
async function load(store, events, ms) {
  const stream = 'task-long';
  if ((await store.readStream(stream)).events.length === 0) {
    for (let first = 1; first <= events; first += FILL_EVENTS) {
      const count = Math.min(FILL_EVENTS, events - first + 1);
      await store.appendToStream(stream, Array.from({ length: count }, (_, index) => progressed(first + index)));
    }
  }
  const times = [];
  const begun = performance.now();
  while (times.length === 0 || performance.now() - begun < ms) {
    const start = performance.now();
    const found = (await store.readStream(stream)).events.length;
    if (found !== events) throw new Error(`read ${found} events instead of ${events}`);
    times.push(performance.now() - start);
  }
  tell(times, performance.now() - begun);
}

function tell(times, ms) {
  times.sort((a, b) => a - b);
  const us = (share) => Math.round((times[Math.max(Math.ceil(times.length * share), 1) - 1] ?? 0) * 1000);
  console.log(JSON.stringify({ count: times.length, seconds: ms / 1000, p50Us: us(0.5), p99Us: us(0.99) }));
}

const [url, work, number, ms] = process.argv.slice(2);
const store = getPostgreSQLEventStore(url);
await store.schema.migrate();
await { append, load }[work](store, Number(number), Number(ms));
await store.close();
