//! Tokens and roles over HTTP.

use std::collections::BTreeSet;
use std::time::Duration;

use identity::PERMISSIONS;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::double::Server;
use crate::http::route;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A new token's secret.
async fn mint(server: &Server, role: &str) -> String {
    let body = json!({"principal": format!("user:{role}"), "roles": [role]});
    let done = server.send("/v1/tokens", &body).await;
    done["body"]["secret"].as_str().expect("a secret").to_owned()
}

/// Status and body of a request by somebody else.
async fn by(server: &Server, token: &str, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let response = server.plain(method, path).bearer_auth(token).json(body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[test]
fn what_routes_need_is_what_roles_are_made_of() {
    let needed: BTreeSet<&str> = route::routes().iter().filter_map(|route| route.permission).collect();
    assert_eq!(needed, BTreeSet::from_iter(PERMISSIONS.iter().map(|(permission, _)| *permission)));
}

#[tokio::test]
async fn every_role_gets_through_to_what_it_may_do_and_to_nothing_else() {
    let server = Server::start().await;
    for role in identity::Role::ALL {
        let secret = mint(&server, role.as_str()).await;
        for route in route::routes() {
            let Some(permission) = route.permission else { continue };
            // Feeds do not end, and nothing is to be changed by what is let through.
            if route.name == "followEvents" || route.method != Method::GET && role.permits(permission) {
                continue;
            }
            let path = route.path.replace(['{', '}'], "");
            let asked = server.plain(route.method.clone(), &path).bearer_auth(&secret);
            let status = asked.send().await.expect("an answer").status();
            assert_eq!(status == StatusCode::FORBIDDEN, !role.permits(permission), "{role} {permission}");
        }
    }
}

#[tokio::test]
async fn a_denial_says_why_and_where_it_is_recorded() {
    let server = Server::start().await;
    let secret = mint(&server, "auditor").await;
    let disband = |reason: &'static str| {
        let server = &server;
        let secret = &secret;
        async move {
            let body = json!({ "reason": reason });
            by(server, secret, Method::POST, "/v1/crews/pair/disband", &body).await
        }
    };
    let (status, problem) = disband("one").await;
    assert_eq!((status, &problem["type"]), (403, &json!("urn:hypercode:problem:denied")));
    let detail = problem["detail"].as_str().expect("a reason");
    assert!(detail.contains("user:auditor") && detail.contains("`crew:disband`"), "{detail}");
    let position = problem["position"].as_u64().expect("a position");
    let page = server.get(&format!("/v1/audit?order=newest&limit=1&minPosition={position}")).await;
    let event = &page["items"][0];
    assert_eq!((&event["position"], &event["kind"]), (&json!(position), &json!("access_denied")));
    assert_eq!(event["principal"], "user:auditor");
    // Whoever tries again at once is told of the same event.
    assert_eq!(disband("two").await.1["position"], position);
}

#[tokio::test]
async fn whoever_asks_is_told_what_they_are() {
    let server = Server::start().await;
    let admin = server.get("/v1/whoami").await;
    assert_eq!((&admin["principal"], &admin["roles"]), (&json!("user:admin"), &json!(["platform_admin"])));
    let secret = mint(&server, "viewer").await;
    let (status, viewer) = by(&server, &secret, Method::GET, "/v1/whoami", &json!({})).await;
    assert_eq!((status, &viewer["roles"]), (200, &json!(["viewer"])));
    assert!(secret.contains(viewer["token"].as_str().expect("an id")) && viewer["expiresAt"].is_string());

    let listed = server.get("/v1/tokens").await;
    assert_eq!(listed["items"][0]["state"], "live");
    let (_, tail) = secret.rsplit_once('_').expect("a token has parts");
    assert!(!listed.to_string().contains(tail) && !listed.to_string().contains("argon2"), "{listed}");
    let id = viewer["token"].as_str().expect("an id");
    server.send(&format!("/v1/tokens/{id}/revoke"), &json!({"reason": "lost"})).await;
    assert_eq!(by(&server, &secret, Method::GET, "/v1/whoami", &json!({})).await.0, 401);
    assert_eq!(server.get("/v1/tokens").await["items"][0]["state"], "revoked");
    let roles = server.get("/v1/roles").await;
    assert_eq!(roles["items"], json!([{"principal": "user:viewer", "roles": ["viewer"], "tokens": []}]));
}

#[tokio::test]
async fn a_feed_lasts_no_longer_than_its_token() {
    let server = Server::start().await;
    let secret = mint(&server, "auditor").await;
    let id = server.get("/v1/tokens").await["items"][0]["id"].as_str().expect("an id").to_owned();
    let feed = server.plain(Method::GET, "/v1/events?after=0").bearer_auth(&secret).send().await;
    let feed = feed.expect("a feed");
    assert_eq!(feed.status(), StatusCode::OK);
    server.send(&format!("/v1/tokens/{id}/revoke"), &json!({})).await;
    let rest = tokio::time::timeout(PATIENCE, feed.text()).await.expect("it ends");
    assert!(rest.expect("text").contains("token_minted"));
}

#[tokio::test]
async fn nobody_acts_in_the_name_of_who_may_do_more() {
    let server = Server::start().await;
    let lead = mint(&server, "tenant_admin").await;
    let boss = mint(&server, "platform_admin").await;
    let (_, boss) = by(&server, &boss, Method::GET, "/v1/whoami", &json!({})).await;
    let id = boss["token"].as_str().expect("an id");
    let in_the_name = json!({"principal": "user:platform_admin", "roles": ["viewer"]});
    let revoke = format!("/v1/tokens/{id}/revoke");
    for (path, body) in [("/v1/tokens", &in_the_name), (revoke.as_str(), &json!({}))] {
        let (status, problem) = by(&server, &lead, Method::POST, path, body).await;
        assert_eq!(status, 403, "{path}: {problem}");
        assert!(problem["position"].is_u64(), "{path}: {problem}");
    }
    // A token of one's own may always be ended.
    let (_, own) = by(&server, &lead, Method::GET, "/v1/whoami", &json!({})).await;
    let revoke = format!("/v1/tokens/{}/revoke", own["token"].as_str().expect("an id"));
    assert_eq!(by(&server, &lead, Method::POST, &revoke, &json!({})).await.0, 200);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_field() {
    let server = Server::start().await;
    let mint = |principal: &str, role: &str, expires: &str| json!({"principal": principal, "roles": [role], "expires": expires});
    for (body, field) in [
        (mint("user:admin", "viewer", "1h"), "principal"),
        (mint("system:watchdog", "viewer", "1h"), "principal"),
        (mint("user:", "viewer", "1h"), "principal"),
        (mint("user:a", "root", "1h"), "role"),
        (mint("user:a", "viewer", "soon"), "expires"),
        (mint("user:a", "viewer", "366d"), "expires"),
        (json!({"principal": "user:a", "roles": []}), "roles"),
        (json!({"principal": "user:a", "roles": ["viewer"], "hash": "x"}), "hash"),
    ] {
        let (status, problem) = by(&server, server.token(), Method::POST, "/v1/tokens", &body).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && detail.contains(&format!("`{field}`")), "{body}: {problem}");
    }
}
