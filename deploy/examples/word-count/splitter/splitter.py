"""Splits a text into parts, has each counted, and has a report written: JSON-RPC 2.0 on stdio."""

import itertools, json, os, pathlib, queue, sys, threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

PARTS = int(os.environ.get("PARTS", "3"))
PART_CHARS_MAX = 30_000  # a line may have 240 KiB, and JSON may need six bytes for a character
WORDS_MAX = 1_000

ids, answers, canceled, lock = itertools.count(), {}, set(), threading.Lock()


def send(message):
    with lock:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(method, params):
    """Asks the platform for something and waits for its answer."""
    call_id = f"c{next(ids)}"
    answers[call_id] = waiting = queue.SimpleQueue()
    send({"id": call_id, "method": method, "params": params})
    answer = waiting.get()
    if "error" in answer:
        raise RuntimeError(answer["error"]["message"])
    return answer["result"]


def delegate(task, key, member, text):
    """Has a member do a part of the task. After a crash the same key gives the same child."""
    child = call("task/delegate", {"taskId": task["taskId"], "key": key, "to": member, "input": text})
    if child["state"] != "completed":
        raise RuntimeError(f"{member} ended `{key}` {child['state']}")
    return child["output"]


def split(words):
    """As many parts of about the same length as there are counters, or more where they are long."""
    count = max(PARTS, sum(len(word) + 1 for word in words) // PART_CHARS_MAX + 1)
    size = max(1, -(-len(words) // count))
    return [" ".join(words[start : start + size]) for start in range(0, len(words), size)]


def execute(task):
    files = sorted(pathlib.Path(task["dir"], "in").glob("*"))
    texts = [task["input"]["text"]] + [file.read_text("utf-8", "replace") for file in files]
    parts, counts = split(" ".join(texts).split()), Counter()
    with ThreadPoolExecutor(max_workers=16) as pool:
        outputs = pool.map(lambda part: delegate(task, f"part-{part[0]}", "counter", part[1]), enumerate(parts))
        for done, output in enumerate(outputs, 1):
            counts.update(output["parts"][0]["data"])
            send({"method": "task/progress", "params": {"taskId": task["taskId"], "progress": done, "total": len(parts)}})
    lines = [f"{count} {word}" for word, count in counts.most_common(WORDS_MAX)]
    return {"output": delegate(task, "report", "reporter", "\n".join(lines))}


def answer(request):
    task = request["params"]
    try:
        outcome = {"result": execute(task)}
    except Exception as error:  # whatever it was, the platform must hear of it
        failure = {"code": 500, "message": str(error), "data": {"retry": "permanent"}}
        outcome = {"result": {"state": "canceled"}} if task["taskId"] in canceled else {"error": failure}
    send({"id": request["id"], **outcome})


for message in map(json.loads, sys.stdin):
    method = message.get("method")
    if method is None and message["id"] in answers:
        answers.pop(message["id"]).put(message)
    elif method == "task/execute":
        threading.Thread(target=answer, args=[message], daemon=True).start()
    elif method == "task/cancel":
        canceled.add(message["params"]["taskId"])
    elif method == "initialize":
        send({"id": message["id"], "result": {"concurrency": 4}})
    elif method and "id" in message:
        send({"id": message["id"], "error": {"code": -32601, "message": f"no method {method}"}})
