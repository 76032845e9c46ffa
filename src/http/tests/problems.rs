//! Whatever is wrong with a request is told as a problem.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::double::{self, Server};

async fn refused(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["type"].as_str().unwrap().starts_with("urn:hypercode:problem:"), "{problem}");
    assert!(
        problem["retryable"].is_boolean() && problem["title"].is_string() && problem["detail"].is_string()
    );
    (status, problem)
}

async fn post(
    server: &Server,
    path: &str,
    media_type: &str,
    body: impl Into<reqwest::Body>,
) -> (StatusCode, Value) {
    let request = server.request(Method::POST, path).header("content-type", media_type).body(body);
    refused(request.send().await.unwrap()).await
}

#[tokio::test]
async fn paths_and_methods_that_are_none() {
    let server = Server::start().await;
    let (status, _) = refused(server.request(Method::GET, "/v2/crews").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let response = server.request(Method::DELETE, "/v1/crews").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    assert_eq!(refused(response).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _) = refused(server.request(Method::GET, "/v1/crews/%ff").send().await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let server = Server::start().await;
    let (status, problem) = post(&server, "/v1/tasks", "application/json", "{\n \"crew\": }").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((&problem["faults"][0]["line"], &problem["faults"][0]["column"]), (&json!(2), &json!(10)));

    let deep = format!("{{\"crew\":\"c\",\"input\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, problem) = post(&server, "/v1/tasks", "application/json", deep).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(problem["detail"].as_str().unwrap().contains("recursion limit"), "{problem}");

    let (status, problem) =
        post(&server, "/v1/tasks", "application/json", "{\"crew\":\"c\",\"inpt\":1}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        problem["detail"].as_str().unwrap().contains("`inpt`, expected one of `crew`, `to`, `input`"),
        "{problem}"
    );

    let (status, _) = post(&server, "/v1/tasks", "text/plain", "{}").await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (status, _) = post(&server, "/v1/tasks", "application/json", vec![0xff, 0xfe]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let large = format!("\"{}\"", "x".repeat(double::BODY_BYTES_MAX));
    let (status, _) = post(&server, "/v1/tasks", "application/json", large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn values_that_are_not_legal() {
    let server = Server::start().await;
    for path in [
        "/v1/crews?limit=0",
        "/v1/crews?limit=1001",
        "/v1/crews?limit=many",
        "/v1/crews?cursor=x",
        "/v1/crews?colour=red",
        "/v1/crews?status=happy",
        "/v1/agents/a%20b",
        "/v1/events?entity=dog",
        "/v1/events?stream=dog",
    ] {
        let (status, problem) = refused(server.request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!(
            (status, &problem["type"]),
            (StatusCode::BAD_REQUEST, &json!("urn:hypercode:problem:invalid")),
            "{path}"
        );
    }
    for path in ["/v1/crews/nobody", "/v1/agents/ag_1", "/v1/tasks/tk_1", "/v1/profiles/none"] {
        let (status, _) = refused(server.request(Method::GET, path).send().await.unwrap()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let key = server
        .request(Method::POST, "/v1/tasks")
        .header("idempotency-key", "a b")
        .json(&json!({"crew": "c", "input": 1}));
    assert_eq!(refused(key.send().await.unwrap()).await.0, StatusCode::BAD_REQUEST);
    let last = server.request(Method::GET, "/v1/events").header("last-event-id", "x");
    assert_eq!(refused(last.send().await.unwrap()).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_manifest_has_all_its_faults_listed_at_once() {
    let server = Server::start().await;
    let text =
        "apiVersion: hypercode.dev/v1\nkind: Crew\nmetadata: {name: x}\nspec:\n  entry: a\n  memebrs: []\n";
    let (status, problem) = post(&server, "/v1/crews/assemble", "application/yaml", text).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let faults = problem["faults"].as_array().unwrap();
    let unknown = faults.iter().find(|fault| fault["code"] == "unknown_field").expect("the field is unknown");
    assert_eq!((&unknown["location"]["line"], &unknown["nearest"]), (&json!(6), &json!("members")));

    let mut manifest = double::crew();
    manifest["spec"]["members"][0]["replicas"] = json!(0);
    let body = json!({ "manifest": manifest }).to_string();
    let (_, problem) = post(&server, "/v1/crews/assemble", "application/json", body).await;
    assert_eq!(problem["faults"][0]["path"], "spec.members[0].replicas");
    assert!(problem["faults"][0].get("location").is_none(), "{problem}");

    let mut other = double::crew();
    other["metadata"]["tenant"] = json!("others");
    let body = json!({ "manifest": other }).to_string();
    let (status, _) = post(&server, "/v1/crews/assemble", "application/json", body).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_platform_that_panics_or_does_not_answer_is_a_problem_too() {
    let server = Server::start().await;
    server.assemble().await;
    let (status, _) = post(&server, "/v1/crews/pair/drain", "application/json", "").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let (status, problem) = post(&server, "/v1/crews/pair/resume", "application/json", "").await;
    assert_eq!((status, &problem["retryable"]), (StatusCode::GATEWAY_TIMEOUT, &json!(true)));
}
