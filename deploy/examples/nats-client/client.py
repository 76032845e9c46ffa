"""Assembles a crew by command subject, gives it a task, and follows what happens from JetStream.

Needs `pip install nats-py`, a platform with a bus, and the profiles of the crew:

    hypercode profile apply deploy/examples/word-count/profiles.yaml
    python3 client.py --nats nats://127.0.0.1:4222 --token-file DATA/admin.token \\
        deploy/examples/word-count/crew.yaml "the cat and the dog"

Each node has an `admin.token` of its own. With several nodes use one that all know: `hypercode token mint --role operator`.
"""

import argparse
import asyncio
import json
import pathlib
import uuid

import nats
from nats.js.api import ConsumerConfig, DeliverPolicy


class Problem(Exception):
    """The platform refused: problem details as over HTTP (RFC 9457)."""


async def command(bus, token, name, body, key, media_type="application/json"):
    """Gives a command. The same key gives the same outcome, so it may be sent again when no answer came."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key, "Content-Type": media_type}
    answer = await bus.request(f"hypercode.cmd.{name}", body, timeout=60, headers=headers)
    said = json.loads(answer.data)
    if "Nats-Service-Error-Code" in answer.headers:
        raise Problem(f"{name}: {said['status']} {said['title']}: {said['detail']}")
    return said


async def events_from(bus, position):
    """Every event from a position on: a message's number in the stream is the event's position in the log."""
    config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=position)
    return await bus.jetstream().subscribe("hypercode.evt.>", ordered_consumer=True, config=config)


async def follow(events, subject, kinds):
    """Prints what happens until one of these happens to the subject."""
    while True:
        event = await events.next_msg(timeout=60)
        kind = event.headers["ce-type"].removeprefix("dev.hypercode.")
        print(f"{event.headers['ce-position']:>6}  {event.headers['ce-subject']:<45}  {kind}", flush=True)
        if event.headers["ce-subject"] == subject and kind in kinds:
            return json.loads(event.data)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nats", default="nats://127.0.0.1:4222")
    parser.add_argument("--inbox", default="_INBOX_client", help="as the server's permissions want it")
    parser.add_argument("--token-file", type=pathlib.Path, required=True)
    parser.add_argument("crew", type=pathlib.Path)
    parser.add_argument("input")
    asked = parser.parse_args()
    token = asked.token_file.read_text().strip()
    bus = await nats.connect(asked.nats, inbox_prefix=asked.inbox.encode(), connect_timeout=5)
    run = uuid.uuid4().hex

    crew = await command(bus, token, "crew.assemble", asked.crew.read_bytes(), f"{run}-crew", "application/yaml")
    print(f"crew {crew['id']} is there", flush=True)
    events = await events_from(bus, crew["position"])

    task = json.dumps({"crew": crew["id"], "input": asked.input}).encode()
    task = await command(bus, token, "task.submit", task, f"{run}-task")
    ended = {"task_completed", "task_failed", "task_canceled", "task_dead_lettered"}
    print(json.dumps(await follow(events, f"task/{task['id']}", ended)), flush=True)

    gone = json.dumps({"crew": crew["id"], "reason": "the example is over"}).encode()
    await command(bus, token, "crew.disband", gone, f"{run}-gone")
    await follow(events, f"crew/{crew['id']}", {"crew_disbanded"})
    await bus.drain()


asyncio.run(main())
