use std::io::{BufReader, PipeReader, PipeWriter, pipe};

use link::Content;
use link::handler::Sender;

use super::*;

/// Answers with what it is asked for.
struct Sample;

impl Handler for Sample {
    fn execute(&self, task: &Task) -> Result<Executed, Error> {
        match task.params().input.joined_text().as_str() {
            "wait" => task.pause(std::time::Duration::from_secs(600)).map(|()| Executed::default()),
            "panic" => panic!("as asked"),
            "huge" => Ok(Executed::output(Content::text("x".repeat(LINE_BYTES_MAX)))),
            "delegate" => {
                let to = "other".parse().expect("an address");
                let children = thread::scope(|scope| {
                    let to = &to;
                    let call = |key| scope.spawn(move || task.delegate(to, key, Content::text(key)));
                    let calls = ["a", "b"].map(call);
                    calls.map(|thread| thread.join().expect("a child"))
                });
                let [a, b] = children;
                let text =
                    |child: link::Child| child.output.map(|output| output.joined_text()).unwrap_or_default();
                Ok(Executed::output(Content::text(format!("{}{}", text(a?), text(b?)))))
            }
            _ => Err(Error::new(ErrorType::Unavailable, "not now").with("retry", "transient")),
        }
    }

    fn deliver(&self, message: &Deliver) -> Result<(), Error> {
        if message.from == (Sender { member: "friend".into(), agent: None }) {
            Ok(())
        } else {
            panic!("a stranger")
        }
    }
}

/// The runner's end of two pipes.
struct Runner {
    to: Option<PipeWriter>,
    from: BufReader<PipeReader>,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Runner {
    fn start() -> Self {
        let (their_input, to) = pipe().expect("a pipe");
        let (from, their_output) = pipe().expect("a pipe");
        let server = thread::spawn(move || serve(Sample, BufReader::new(their_input), their_output));
        Self { to: Some(to), from: BufReader::new(from), server: Some(server) }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.to.as_mut().expect("an open pipe").write_all(bytes).expect("a write");
    }

    fn request(&mut self, id: u32, method: &str, params: &Value) {
        self.write(
            format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
                .as_bytes(),
        );
    }

    fn execute(&mut self, id: u32, task: &str, input: &str) {
        let params = json!({"taskId": task, "attempt": 1, "contextId": "cx", "input": input,
            "from": {"kind": "principal", "name": "user:a"}, "dir": "/nowhere"});
        self.request(id, "task/execute", &params);
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    fn end(&mut self) {
        drop(self.to.take());
        self.server.take().expect("a server").join().expect("no panic").expect("an end of the input");
    }
}

#[test]
fn requests_are_answered_and_unknown_ones_refused() {
    let mut runner = Runner::start();
    runner.request(1, "initialize", &json!({"protocolVersion": 1}));
    assert_eq!(runner.read()["result"]["ping"], true);
    runner.request(2, "ping", &json!({}));
    assert_eq!(runner.read(), json!({"jsonrpc": "2.0", "id": 2, "result": {}}));
    runner.request(3, "dance", &json!({}));
    assert_eq!(runner.read()["error"]["code"], -32601);
    runner.request(4, "task/execute", &json!({"taskId": 5}));
    assert_eq!(runner.read()["error"]["code"], -32602);
    runner.execute(5, "tk", "?");
    let error = runner.read()["error"].clone();
    assert_eq!((&error["code"], &error["data"]["retry"]), (&json!(503), &json!("transient")));
    runner.request(6, "shutdown", &json!({"reason": "drain", "graceMs": 1}));
    assert_eq!(runner.read()["id"], 6);
    runner.end();
}

#[test]
fn broken_lines_harm_nobody() {
    let mut runner = Runner::start();
    runner.write(b"hello\n{\n\xff\xfe\n\n{\"jsonrpc\":\"2.0\",\"id\":77,\"result\":1}\n");
    runner.write(&vec![b'x'; LINE_BYTES_MAX + 1]);
    runner.write(b"\n{\"jsonrpc\":\"2.0\"}\n{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":7}\n");
    assert_eq!(runner.read()["error"]["code"], 413);
    let refused = runner.read();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(5), &json!(-32600)));
    runner.request(1, "ping", &json!({}));
    assert_eq!(runner.read()["id"], 1);
    runner.write(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"meth");
    runner.end();
}

#[test]
fn a_cancelled_task_ends_as_canceled_and_a_second_one_is_refused_meanwhile() {
    let mut runner = Runner::start();
    runner.execute(1, "tk_1", "wait");
    runner.execute(2, "tk_2", "wait");
    assert_eq!(runner.read()["error"]["code"], 503);
    let cancel = json!({"taskId": "tk_1", "reason": "enough", "graceMs": 1000});
    runner.write(
        format!("{}\n", json!({"jsonrpc": "2.0", "method": "task/cancel", "params": cancel})).as_bytes(),
    );
    assert_eq!(runner.read()["result"]["state"], "canceled");
    runner.end();
}

#[test]
fn concurrent_calls_get_their_own_answers_in_any_order() {
    let mut runner = Runner::start();
    runner.execute(1, "tk", "delegate");
    let mut calls = [runner.read(), runner.read()];
    calls.reverse();
    for call in &calls {
        assert_eq!((&call["method"], &call["params"]["taskId"]), (&json!("task/delegate"), &json!("tk")));
        let result = json!({"taskId": "c", "state": "completed", "output": call["params"]["key"]});
        for _ in 0..2 {
            runner.write(
                format!("{}\n", json!({"jsonrpc": "2.0", "id": call["id"], "result": result})).as_bytes(),
            );
        }
    }
    assert_eq!(runner.read()["result"]["output"]["parts"][0]["text"], "ab");
    runner.end();
}

#[test]
fn panics_and_answers_that_do_not_fit_fail_their_task_alone() {
    let mut runner = Runner::start();
    for (id, input, code) in [(1, "panic", 500), (2, "huge", 413), (3, "?", 503)] {
        runner.execute(id, &format!("tk_{id}"), input);
        let answer = runner.read();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(code)), "{answer}");
    }
    let message = json!({"messageId": "m", "from": {"member": "friend"}, "parts": [], "delivery": 1});
    runner.request(4, "message/deliver", &message);
    assert_eq!(runner.read()["result"], json!({}));
    let message = json!({"messageId": "m", "from": {"member": "foe"}, "parts": [], "delivery": 1});
    runner.request(5, "message/deliver", &message);
    assert_eq!(runner.read()["error"]["code"], 500);
    runner.end();
}

#[test]
fn a_call_that_waits_ends_with_the_runner() {
    let mut runner = Runner::start();
    runner.execute(1, "tk", "delegate");
    runner.read();
    runner.end();
}
