//! The API over real connections, on a platform whose commands are a double.

mod access;
pub(crate) mod double;
mod feed;
mod fuzz;
mod problems;
mod tls;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use double::Server;

#[tokio::test]
async fn every_route_is_in_the_document_and_says_what_it_needs() {
    let public = ["health", "readiness", "readJwks", "openApi"];
    let document = openapi();
    assert_eq!(document["openapi"], "3.1.0");
    for route in route::routes() {
        let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
        assert_eq!(operation["operationId"], route.name, "{} {}", route.method, route.path);
        assert!(operation["responses"][route.status.as_str()].is_object(), "{}", route.name);
        assert_eq!(operation["x-permission"].is_string(), !public.contains(&route.name), "{}", route.name);
        let levels = ["platform", "tenant", "crew", "own"].map(serde_json::Value::from);
        let level = &operation["x-scope"];
        assert_eq!(levels.contains(level), !public.contains(&route.name), "{}: {level}", route.name);
        for segment in route.path.split('/').filter(|part| part.starts_with('{')) {
            let name = segment.trim_matches(['{', '}']);
            let parameters =
                operation["parameters"].as_array().expect("a path with variables has parameters");
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "path")
            );
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap_or_default();
        assert!(document.pointer(pointer).is_some(), "`{pointer}` is referred to but not there");
    }
}

/// Walks the document: whatever is called a schema is one, and every body says whether it must be there.
#[test]
fn the_document_is_valid_openapi() {
    fn walk(value: &Value, path: &str) {
        let Value::Object(fields) = value else {
            if let Value::Array(items) = value {
                items.iter().enumerate().for_each(|(index, item)| walk(item, &format!("{path}/{index}")));
            }
            return;
        };
        for (name, value) in fields {
            let is_field = path.ends_with("/properties");
            let path = format!("{path}/{name}");
            match name.as_str() {
                _ if is_field => {}
                "schema" => assert!(value.is_object() || value.is_boolean(), "{path}: {value}"),
                "requestBody" => assert!(value["required"].is_boolean(), "{path}: {value}"),
                "description" => assert!(value.is_string(), "{path}: {value}"),
                _ => {}
            }
            walk(value, &path);
        }
    }
    let document = openapi();
    walk(&document, "");
    let body = |path: &str| &document["paths"][path]["post"]["requestBody"];
    assert_eq!(body("/v1/tasks")["required"], true);
    assert_eq!(body("/v1/artifacts")["required"], true);
    assert_eq!(body("/v1/crews/assemble")["content"]["application/yaml"], json!({}));
    assert_eq!(body("/v1/crews/{crew}/disband")["required"], false, "the reason may be left out");
    assert!(body("/v1/crews/{crew}/pause").is_null());
}

#[tokio::test]
async fn no_route_but_the_public_ones_answers_strangers() {
    let server = Server::start().await;
    for route in route::routes() {
        let path = route.path.replace(['{', '}'], "");
        let response = server.anonymous(route.method.clone(), &path).await;
        match route.permission {
            Some(_) => assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}"),
            None => assert_eq!(response.status(), StatusCode::OK, "{path}"),
        }
    }
}

#[tokio::test]
async fn a_command_reaches_the_platform_with_its_caller_and_key() {
    let server = Server::start().await;
    let crew = server.assemble().await;
    assert_eq!((&crew["kind"], &crew["body"]["name"]), (&json!("crew"), &json!("pair")));
    let id = crew["id"].as_str().unwrap();

    let body = json!({"crew": id, "input": "count", "to": "writer", "deadlineMs": 5_000});
    let first = server.send_with_key("/v1/tasks", &body, "k-1").await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let location = first.headers()["location"].to_str().unwrap().to_owned();
    let first: Value = first.json().await.unwrap();
    assert_eq!(location, format!("/v1/tasks/{}", first["id"].as_str().unwrap()));
    assert_eq!(first["body"]["input"], json!({"parts": [{"text": "count"}]}));
    assert_eq!((&first["body"]["principal"], &first["body"]["key"]), (&json!("user:admin"), &json!("k-1")));
    let again: Value = server.send_with_key("/v1/tasks", &body, "k-1").await.json().await.unwrap();
    assert_eq!(again["id"], first["id"]);

    let other = server.send_with_key("/v1/tasks", &json!({"crew": id, "input": "other"}), "k-1").await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = other.json().await.unwrap();
    assert_eq!(problem["type"], "urn:hypercode:problem:key_conflict");

    // An act that would not be recorded is not done.
    let export = server.send_with_key("/v1/audit/exports", &json!({"format": "jsonl"}), "k-1").await;
    assert_eq!(export.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_living_crew_is_known_by_its_name() {
    let server = Server::start().await;
    let crew = server.assemble().await;
    let paused = server.send("/v1/crews/pair/pause", &json!({})).await;
    assert_eq!(paused["id"], crew["id"]);
    let read = server.get("/v1/crews/pair").await;
    assert_eq!((&read["id"], &read["status"]), (&crew["id"], &json!("assembling")));
    let list = server.get("/v1/crews?limit=1").await;
    assert_eq!(list["items"][0]["name"], "pair");
    assert!(list["items"][0].get("spec").is_none() && read["spec"].is_object());
}

#[tokio::test]
async fn lists_come_in_pages_that_join_without_a_seam() {
    let server = Server::start().await;
    for n in 0..5 {
        server.note(&format!("n{n}")).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/audit?limit=2&minPosition=5".to_owned();
    loop {
        let page = server.get(&path).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["position"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/audit?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let newest = server.get("/v1/audit?limit=2&order=newest").await;
    assert_eq!(newest["items"][0]["position"], 5);
}

#[tokio::test]
async fn a_position_that_does_not_come_is_waited_for_and_given_up() {
    let server = Server::start().await;
    let response = server.request(Method::GET, "/v1/crews?min_position=99").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(
        (&problem["type"], &problem["retryable"]),
        (&json!("urn:hypercode:problem:timeout"), &json!(true))
    );
}

#[tokio::test]
async fn artifacts_come_back_as_they_went() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let kept: Value = server
        .request(Method::POST, "/v1/artifacts")
        .body(bytes.clone())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(kept["size"], bytes.len());
    let path = format!("/v1/artifacts/{}", kept["digest"].as_str().unwrap());
    let back = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(back.headers()["x-content-type-options"], "nosniff");
    assert_eq!(back.bytes().await.unwrap(), bytes);
    for unknown in ["00", &"0".repeat(64)] {
        let response = server.request(Method::GET, &format!("/v1/artifacts/{unknown}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_plan_says_what_is_missing_and_who_may_speak() {
    let server = Server::start().await;
    let plan = server.send("/v1/crews/plan", &json!({"manifest": double::crew()})).await;
    assert_eq!(plan["members"][0]["name"], "writer");
    assert_eq!(plan["faults"][0]["code"], "unknown_profile");
    assert!(plan["faults"][0]["message"].as_str().unwrap().contains("writer"));
}

#[tokio::test]
async fn operations_see_counters_and_projections() {
    let server = Server::start().await;
    server.get("/v1/crews").await;
    let text = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("hypercode_http_requests_total{route=\"listCrews\",status=\"200\"} 1\n"), "{text}");
    server.note("x").await;
    // What a view has never seen anything of does not stand anywhere.
    server.get("/v1/audit?minPosition=1").await;
    let rebuilt = server.send("/v1/projections/rebuild", &json!({})).await;
    assert_eq!(rebuilt["head"], 2, "the rebuild itself is an event");
    let names: Vec<&str> =
        rebuilt["items"].as_array().unwrap().iter().filter_map(|item| item["name"].as_str()).collect();
    assert!(names.contains(&"audit") && names.contains(&"tasks"), "{names:?}");
}

#[tokio::test]
async fn the_world_cannot_listen() {
    let error = bind("0.0.0.0:0".parse().unwrap(), None).await.err().unwrap();
    assert!(matches!(error, ServeError::NotLoopback(_)));
    let taken = bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let error = bind(taken.local_addr().unwrap(), None).await.err().unwrap();
    assert!(error.to_string().contains("is another platform running there?"), "{error}");
}
