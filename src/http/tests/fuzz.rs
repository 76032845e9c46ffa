//! Bodies of any bytes on every route that takes one: none is a fault of the server, and each refusal is a problem that
//! says what was expected.

#[path = "../../../tests/support/fuzz.rs"]
mod target;

use reqwest::Method;
use serde_json::Value;
use target::Target;

use super::double::Server;
use crate::api::OPERATIONS;

const BODIES: [&[u8]; 6] = [
    br#"{"crew": "pair", "input": {"parts": [{"text": "a"}, {"data": [1, null]}]}, "deadline": "2h"}"#,
    br#"{"name": "a", "value": "a-value-to-keep"}"#,
    br#"{"principal": "user:carol", "roles": ["auditor"], "expires": "30d"}"#,
    br#"{"reason": "because", "member": "a", "replicas": 3}"#,
    b"apiVersion: hypercode.dev/v1\nkind: Crew\nmetadata: {name: a}\nspec: {entry: a, members: [{name: a, profile: a}]}\n",
    br#"{"manifest": {"apiVersion": "hypercode.dev/v1", "kind": "Profile", "metadata": {"name": "a"}, "spec": {}}}"#,
];

async fn check(server: &Server, input: &[u8]) {
    // Which route and which form is the input's own to say, so that it fails again when it is tried again.
    let sum =
        input.iter().fold(input.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let path = OPERATIONS[sum % OPERATIONS.len()].path;
    let path: Vec<&str> =
        path.split('/').map(|part| if part.starts_with('{') { "x1" } else { part }).collect();
    let form = ["application/json", "application/yaml", "text/plain"][(sum / 64) % 3];
    let request = server.request(Method::POST, &path.join("/")).header("content-type", form);
    let answer = request.body(input.to_vec()).send().await.unwrap();
    let (status, media_type) = (answer.status(), answer.headers().get("content-type").cloned());
    // The double lacks parts, and says so by 503.
    assert!(status.as_u16() < 500 || status.as_u16() == 503, "{path:?}: {status}");
    if !status.is_success() {
        assert_eq!(media_type.unwrap(), "application/problem+json", "{path:?}: {status}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
    }
}

#[test]
fn body() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "body").with(BODIES.map(<[u8]>::to_vec));
    target.run(|input| runtime.block_on(check(&server, input)));
}
