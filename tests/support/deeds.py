"""A handler that does what its task says, `{"do": DEED, ...}`, and keeps a diary of what it was given."""

import itertools, json, os, queue, signal, sys, threading, time

NAME = os.environ.get("HYPERCODE_MEMBER", "handler")
CONCURRENCY = int(os.environ.get("CONCURRENCY", "1"))

ids, answers, canceled, initialized, lock = itertools.count(), {}, {}, {}, threading.Lock()


class Refused(Exception):
    """An error that the platform answered with, or is to be answered with."""


class Parked(Exception):
    """Questions without whose answers a task does not go on."""


def send(message):
    with lock:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(method, **params):
    call_id = f"c{next(ids)}"
    answers[call_id] = waiting = queue.SimpleQueue()
    send({"id": call_id, "method": method, "params": params})
    answer = waiting.get()
    if "error" in answer:
        raise Refused(answer["error"])
    return answer["result"]


def diary(**entry):
    if "DIARY" in os.environ:
        with open(os.environ["DIARY"], "a") as file:
            file.write(json.dumps({"pid": os.getpid(), "member": NAME, **entry}) + "\n")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def execute(task, deed):
    what, task_id = deed["do"], task["taskId"]
    if what == "echo":
        canceled[task_id].wait(deed.get("ms", 0) / 1000)
        return deed.get("text", "done")
    if what == "deep":
        nested = 1
        for _ in range(deed["levels"]):
            nested = [nested]
        return {"nested": nested}
    if what == "fail":
        raise Refused({"code": 500, "message": deed.get("text", "it was told to fail"), "data": {"retry": deed.get("retry", "permanent")}})
    if what == "wait":  # for a file, or to be canceled
        while not os.path.exists(deed["for"]) and not canceled[task_id].wait(0.01):
            pass
        return "waited"
    if what == "deaf":  # to being canceled, until there is a file
        while not os.path.exists(deed["for"]):
            time.sleep(0.01)
        return "waited"
    if what == "die" and task["attempt"] <= deed.get("attempts", 1):
        die()
    if what == "die":
        return f"lived in attempt {task['attempt']}"
    if what == "die_unless" and not os.path.exists(deed["file"]):
        die()
    if what == "die_unless":
        return "lived"
    if what == "delegate":
        child = call("task/delegate", taskId=task_id, key="child", to=deed["to"], input=deed["input"])
        if child["state"] != "completed":
            raise Refused({"code": 500, "message": f"the child is {child['state']}"})
        return {"child": child["taskId"], "state": child["state"], "output": child.get("output")}
    if what == "repeat":  # the same, again and again, without saying which time it is; later times when there is a file
        children = []
        for number in range(deed["times"]):
            if number == deed["first"]:
                execute(task, {"do": "wait", "for": deed["for"]})
            children.append(call("task/delegate", taskId=task_id, to=deed["to"], input=deed["input"])["taskId"])
        return {"children": children}
    if what == "spread":  # so many children at once, and who of them may not be
        refused = []

        def spread(number):
            try:
                call("task/delegate", taskId=task_id, key=f"child{number}", to=deed["to"], input=deed["input"], wait=False)
            except Refused as error:
                refused.append(error.args[0]["data"]["type"])

        threads = [threading.Thread(target=spread, args=[number]) for number in range(deed["times"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"refused": refused}
    if what == "leave" and task["attempt"] == 1:  # a child behind
        call("task/delegate", taskId=task_id, key="child", to=deed["to"], input=deed["input"], wait=False)
        raise Refused({"code": 500, "message": "it left", "data": {"retry": "permanent"}})
    if what == "leave":  # and comes back for it
        return call("task/delegate", taskId=task_id, key="child", to=deed["to"], input=deed["input"])["state"]
    if what == "checkpoint":  # once a large one, and then an end; the next attempt tells what it was given
        if "checkpoint" in task:
            return {"kept": len(task["checkpoint"]["kept"])}
        call("task/checkpoint", taskId=task_id, data={"kept": "x" * deed["chars"]})
        die()
    if what == "noise":
        for number in range(50_000):
            print(f"this is no message {number}", file=sys.stderr)
        with lock:
            print("half a line, then whole ones that are no messages either\n" * 50_000, flush=True)
        return "heard in spite of the noise"
    if what == "say" and task["attempt"] == 1:  # bytes on an output; it may die of them
        output = sys.stderr.buffer if deed.get("on") == "stderr" else sys.stdout.buffer
        with lock:
            output.write(deed["text"].encode("latin-1") * deed.get("times", 1))
            output.flush()
        if "dies" in deed:
            die()
        return "said"
    if what == "say":
        return "lived"
    if what == "call":
        here = {"taskId": task_id} if deed.get("here") else {}
        try:
            return {"result": call(deed["method"], **here, **deed["params"])}
        except Refused as refused:
            return {"error": refused.args[0]}
    if what == "mutter":  # to whoever listens, until there is a file
        while not os.path.exists(deed["for"]):
            send({"method": "task/progress", "params": {"taskId": task_id, "delta": deed["text"]}})
            canceled[task_id].wait(0.05)
        return "said"
    if what == "lease":  # says that it will be silent, and is
        send({"method": "busy", "params": {"taskId": task_id, "forMs": deed["ms"]}})
        return execute(task, {"do": "wait", "for": deed["for"]})
    if what == "use":  # tokens of a model, as it says; then perhaps, when there is a file, something else
        send({"method": "usage", "params": {"taskId": task_id, "model": "small", "inputTokens": deed["tokens"]}})
        if "for" in deed:
            execute(task, {"do": "wait", "for": deed["for"]})
        return execute(task, deed["then"]) if "then" in deed else "used"
    if what == "chatter":  # messages without end, whatever is answered
        while not os.path.exists(deed["for"]):
            try:
                call("message/send", to=deed["to"], text="again")
            except Refused:
                time.sleep(0.01)
        return "said"
    if what == "keep":  # artifacts, so many a second, until there is a file; how many, and what was refused
        kept, refused = 0, []
        while not os.path.exists(deed["for"]):
            began = time.monotonic()
            try:
                call("artifact/put", text=f"{task_id} {kept}", name="kept", mediaType="text/plain")
                kept += 1
            except Refused as error:
                refused.append(error.args[0])
            time.sleep(max(0, began + 1 / deed["rate"] - time.monotonic()))
        return {"kept": kept, "refused": refused}
    if what == "resend":  # the same message so many times at once
        ids = set()

        def resend():
            ids.add(call("message/send", to=deed["to"], text="once", key="the same")["messageId"])

        threads = [threading.Thread(target=resend) for _ in range(deed["times"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"ids": sorted(ids)}
    if what == "send":
        return call("message/send", to=deed["to"], text=deed["text"])
    if what == "park":  # once for each of its questions
        open_questions = {key: asked for key, asked in deed["questions"].items() if key not in task.get("answers", {})}
        for key, asked in open_questions.items():
            raise Parked({key: asked})
        return {"attempt": task["attempt"], "answers": task["answers"]}
    if what == "peers":
        return {"peers": initialized["peers"]}
    if what == "ask":
        return call("input/request", taskId=task_id, key=deed.get("key", "question"), kind="approval", title=deed["title"])
    raise Refused({"code": 422, "message": f"no such deed: {what}"})


def answer(request):
    task = request["params"]
    task_id = task["taskId"]
    canceled[task_id] = threading.Event()
    deed = task["input"]["parts"][0]["data"]
    diary(task=task_id, attempt=task["attempt"], deed=deed["do"])
    try:
        output = execute(task, deed)
        outcome = {"result": {"output": output}}
    except Parked as parked:
        outcome = {"result": {"state": "input_required", "requests": parked.args[0]}}
    except Refused as refused:
        error = refused.args[0]
        diary(task=task_id, attempt=task["attempt"], deed="refused", type=error.get("data", {}).get("type"))
        outcome = {"error": {"code": error.get("code", 500), "message": error["message"], "data": error.get("data", {})}}
    if canceled.pop(task_id).is_set():
        outcome = {"result": {"state": "canceled"}}
        diary(task=task_id, attempt=task["attempt"], deed="cancel")
    for _ in range(deed.get("answers", 1)):
        send({"id": request["id"], **outcome})


for message in map(json.loads, sys.stdin):
    method = message.get("method")
    if method is None and message["id"] in answers:
        answers.pop(message["id"]).put(message)
    elif method == "task/execute":
        threading.Thread(target=answer, args=[message], daemon=True).start()
    elif method == "task/cancel":
        if event := canceled.get(message["params"]["taskId"]):
            event.set()
    elif method == "initialize":
        initialized.update(message["params"])
        send({"id": message["id"], "result": {"concurrency": CONCURRENCY}})
    elif method and "id" in message:
        send({"id": message["id"], "error": {"code": -32601, "message": f"no method {method}"}})
