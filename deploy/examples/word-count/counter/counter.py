"""Counts the words of a text: the smallest handler there is. Standard library only."""

import json
import re
import sys
from collections import Counter


def execute(task):
    counts = Counter(re.findall(r"[^\W\d_]+", task["input"]["text"].lower()))
    return {"output": {"parts": [{"data": counts}]}}


for request in map(json.loads, sys.stdin):
    if "id" not in request:
        continue  # a notification: a count is done too soon to be canceled
    answer = {"jsonrpc": "2.0", "id": request["id"]}
    if request["method"] == "task/execute":
        answer["result"] = execute(request["params"])
    else:
        answer["error"] = {"code": -32601, "message": f"no method {request['method']}"}
    print(json.dumps(answer), flush=True)
