"""eventsourcing, put to the same work: `URL append WRITERS MILLISECONDS`, or `URL load EVENTS MILLISECONDS`.

Prints one line of JSON about the calls that it made.
"""

import json
import math
import os
import sys
import threading
import time
import uuid
from urllib.parse import parse_qs, urlparse

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

MESSAGE = (
    "reading the files of the part that was given to this attempt, one after the other, "
    "and counting what is found in them"
)
FILL_EVENTS = 500


class Task(Aggregate):
    @event("Submitted")
    def __init__(self, name: str):
        self.name = name
        self.progress = 0.0

    @staticmethod
    def create_id(name: str):
        return uuid.uuid5(uuid.NAMESPACE_URL, name)

    @event("Progressed")
    def progressed(self, message: str, progress: float, total: float, note: str):
        self.progress = progress

    def work(self, version):
        self.progressed(MESSAGE, float(version), 10000.0, f"{version:032x}")


class Tasks(Application):
    pass


def application(url):
    parts = urlparse(url)
    return Tasks(
        env={
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.lstrip("/"),
            "POSTGRES_HOST": parse_qs(parts.query)["host"][0],
            "POSTGRES_PORT": "5432",
            "POSTGRES_USER": parts.username,
            "POSTGRES_PASSWORD": "unused",
            "POSTGRES_POOL_SIZE": "10",
        }
    )


def append(app, writers, seconds):
    """Lets so many writers append one event after the other, each to an aggregate of its own."""
    times, failures, begin = [], [], threading.Barrier(writers + 1)

    def write(number):
        try:
            task, version = Task(f"task-{os.getpid()}-{number}"), 0
            app.save(task)
            begin.wait()
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                version += 1
                task.work(version)
                app.save(task)
                times.append(time.perf_counter() - start)
        except Exception as failure:
            failures.append(failure)
            begin.abort()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    tell(times, time.perf_counter() - start)


def load(app, events, seconds):
    """Reads an aggregate of so many events again and again; makes it first where there is none."""
    name = Task.create_id("task-long")
    if not list(app.events.get(name, limit=1)):
        task = Task("task-long")
        for version in range(1, events):
            task.work(version)
            if version % FILL_EVENTS == 0:
                app.save(task)
        app.save(task)
    times, begun = [], time.perf_counter()
    while not times or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        task = app.repository.get(name)
        times.append(time.perf_counter() - start)
        assert task.version == events, f"read {task.version} events instead of {events}"
    tell(times, time.perf_counter() - begun)


def tell(times, seconds):
    times.sort()

    def us(share):
        return round(times[max(math.ceil(len(times) * share), 1) - 1] * 1e6)

    print(json.dumps({"count": len(times), "seconds": seconds, "p50Us": us(0.5), "p99Us": us(0.99)}))


def main():
    _, url, work, number, ms = sys.argv
    app = application(url)
    {"append": append, "load": load}[work](app, int(number), int(ms) / 1000)
    app.close()


main()
