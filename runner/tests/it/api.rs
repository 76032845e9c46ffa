//! The handler API, as any handler may use it.

use serde_json::{Value, json};

use crate::stub::{Sandbox, digest};

/// Runs a script inside a task of a stdio handler; `api(method, path, body)` gives status and body.
async fn script(sandbox: &mut Sandbox, body: &str) {
    let handler = format!(
        r#"
import urllib.request, urllib.error
def api(method, path, body=None, headers={{}}):
    request = urllib.request.Request(os.environ["HYPERCODE_API"] + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return [response.status, response.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
def post(path, params):
    status, body = api("POST", path, json.dumps(params).encode())
    return [status, json.loads(body)]
def execute(params):
    task, dir = params["taskId"], params["dir"]
{body}
serve({{"task/execute": execute}})
"#
    );
    sandbox.python(&handler).await;
    sandbox.task("tk_1", json!("go")).await;
}

fn output(result: &Value) -> &Value {
    let output = &result["result"]["output"]["parts"][0]["data"];
    assert!(!output.is_null(), "{result}");
    output
}

#[tokio::test]
async fn artifacts_go_in_and_out_beside_the_link() {
    let mut sandbox = Sandbox::start().await;
    let url = sandbox.store(b"given");
    let body = format!(
        r#"
    open(dir + "/made.txt", "w").write("made")
    put = post("/artifact/put", {{"path": "made.txt", "name": "made", "mediaType": "text/plain"}})
    text = post("/artifact/put", {{"text": "told", "name": "told"}})
    got = post("/artifact/get", {{"url": "{url}", "path": "sub/given.txt"}})
    read = open(got[1]["path"]).read()
    raw = api("GET", "/file/" + put[1]["digest"])
    up = api("POST", "/file", b"uploaded")
    out = [post("/artifact/put", {{"path": path, "name": "x"}})[0] for path in ["/etc/passwd", "../../x", "none"]]
    away = post("/artifact/get", {{"url": "{url}", "path": "../../../away"}})[0]
    gone = post("/artifact/get", {{"url": "artifact:sha256:" + "0" * 64}})
    return {{"output": [put[1]["size"], text[0], read, raw, up[0], out, away, gone[0], gone[1]["type"]]}}
"#
    );
    script(&mut sandbox, &body).await;
    let result = sandbox.result("tk_1").await;
    let expected =
        json!([4, 200, "given", [200, "made"], 200, [400, 400, 400], 400, 404, "unknown_artifact"]);
    assert_eq!(output(&result), &expected);
    for bytes in [b"made".as_slice(), b"told", b"uploaded"] {
        assert_eq!(sandbox.artifact(&digest(bytes)).as_deref(), Some(bytes));
    }
}

#[tokio::test]
async fn errors_are_problems_and_doors_that_are_not_offered_say_so() {
    let mut sandbox = Sandbox::start().await;
    script(
        &mut sandbox,
        r#"
    base = os.environ["HYPERCODE_API"].rsplit("/", 1)[0]
    os.environ["HYPERCODE_API"], api_url = base + "/" + "0" * 32, os.environ["HYPERCODE_API"]
    stranger = api("GET", "/info")
    os.environ["HYPERCODE_API"] = api_url
    field = post("/state/get", {"kye": "k"})
    return {"output": [
        stranger, field[0], field[1]["type"], field[1]["field"],
        [post(path, {})[1]["type"] for path in ["/model/v1/chat/completions", "/mcp/crew", "/no/such"]],
        post("/next", {})[0], api("POST", "/state/get", b"{")[0], api("POST", "/log", b"x" * 300000)[0],
        post("/task/progress", {"taskId": "tk_other"})[1]["type"],
        post("/log", {"message": "hi"}), json.loads(api("GET", "/info")[1])["agent"]["id"],
    ]}
"#,
    )
    .await;
    let result = sandbox.result("tk_1").await;
    let expected = json!([
        [404, ""],
        400,
        "invalid_params",
        "key",
        ["not_offered", "not_offered", "method_not_found"],
        404,
        400,
        413,
        "unknown_task",
        [200, {}],
        "ag_1"
    ]);
    assert_eq!(output(&result), &expected);
}
