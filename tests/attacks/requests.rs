//! What is asked at the HTTP API by those who may not, or in ways that are none.

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::stage::{CREW, Stage};
use crate::told::{head, recorded, says, text, told, told_without};

/// A client without a token of its own.
struct Stranger {
    client: Client,
    address: String,
    admin: String,
}

impl Stranger {
    fn at(stage: &Stage) -> Self {
        let client = Client::builder().no_proxy().tls_backend_preconfigured(hypercode::tls::none());
        // Who was hung up on begins anew.
        let client = client.pool_max_idle_per_host(0);
        let read = |name: &str| std::fs::read_to_string(stage.home.data().join(name)).expect("a file");
        Self {
            client: client.build().expect("a client"),
            address: read("http.address").trim().to_owned(),
            admin: read("admin.token").trim().to_owned(),
        }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// The status of the answer, with the administrator's token. Who sends too much may be hung up on: that is 413, too.
    async fn status(&self, method: Method, path: &str, body: Vec<u8>) -> u16 {
        let is_huge = body.len() > 1 << 20;
        let request =
            self.ask(method, path).bearer_auth(&self.admin).header("Content-Type", "application/json");
        match request.body(body).send().await {
            Ok(answer) => answer.status().as_u16(),
            Err(_) if is_huge => 413,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}

/// The arguments by which somebody comes in with a token for this role.
async fn by(stage: &Stage, role: &str) -> [String; 2] {
    let minted = stage.json(&["token", "mint", "--role", role, "--purpose", "an attack"]).await;
    let file = stage.home.write(&format!("{role}.token"), text(&minted["body"], "secret"));
    ["--token-file".to_owned(), file.to_str().expect("text").to_owned()]
}

/// Where it is recorded that they were turned away.
async fn turned_away(stage: &Stage, by: &[String; 2], args: &[&str]) -> u64 {
    let by = [by[0].as_str(), by[1].as_str()];
    let said = stage.hypercode(&[&by[..], args].concat()).await.refused(3);
    let (_, position) = said.split_once("recorded at position ").unwrap_or_else(|| panic!("{said}"));
    position.trim().parse().expect("a position")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_becomes_more_than_they_are() {
    let stage = Stage::with_crew().await;
    let (tenant_admin, operator, auditor) =
        (by(&stage, "tenant_admin").await, by(&stage, "operator").await, by(&stage, "auditor").await);
    let tried: [(&[String; 2], &[&str]); 6] = [
        (&tenant_admin, &["role", "grant", "user:tenant_admin", "platform_admin"]),
        (&tenant_admin, &["token", "mint", "--role", "platform_admin"]),
        (&operator, &["role", "grant", "user:operator", "developer"]),
        (&operator, &["approval", "approve", "tk_00000000000000000000000000000000", "key"]),
        (&auditor, &["crew", "disband", "troupe"]),
        (&auditor, &["task", "submit", "troupe", "write"]),
    ];
    let mut last = 0;
    for (who, args) in tried {
        last = turned_away(&stage, who, args).await;
        let event = stage.json(&["audit", "show", &last.to_string()]).await;
        assert_eq!(event["kind"], "access_denied", "{args:?}: {event:#}");
    }
    told(
        "T42",
        "a tenant's admin to make a platform's, an operator to approve, an auditor to write",
        "403",
        last,
    );
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_theirs_is_not_found() {
    let stage = Stage::with_crew().await;
    let stranger = Stranger::at(&stage);
    let mut tried = 0;
    for path in [
        "/v1/crews/cr_00000000000000000000000000000000",
        "/v1/agents/ag_00000000000000000000000000000000",
        "/v1/agents/ag_00000000000000000000000000000000/logs",
        "/v1/tasks/tk_00000000000000000000000000000000",
        "/v1/profiles/nobodys",
        "/v1/pools/nobodys",
    ] {
        assert_eq!(stranger.status(Method::GET, path, Vec::new()).await, 404, "{path}");
        tried += 1;
    }
    for path in [
        "/v1/crews/cr_00000000000000000000000000000000/kill",
        "/v1/crews/cr_00000000000000000000000000000000/disband",
        "/v1/agents/ag_00000000000000000000000000000000/kill",
        "/v1/agents/ag_00000000000000000000000000000000/restart",
        "/v1/tasks/tk_00000000000000000000000000000000/cancel",
        "/v1/tenants/others/kill",
    ] {
        assert_eq!(stranger.status(Method::POST, path, b"{}".to_vec()).await, 404, "{path}");
        tried += 1;
    }
    let theirs = CREW.replace("metadata: {name: troupe}", "metadata: {name: troupe, tenant: others}");
    let after = head(&stage).await;
    stage.assemble(&theirs).await.refused(3);
    let position = recorded(&stage, after, "access_denied", |event| says(event, "tenant")).await;
    told("T41", &format!("{tried} things of others, and a crew of another tenant"), "404 and 403", position);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_tricks_are_refused() {
    let stage = Stage::with_crew().await;
    let (stranger, after) = (Stranger::at(&stage), head(&stage).await);
    let refused = async |request: RequestBuilder| request.send().await.expect("an answer").status();
    for token in ["", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Bearer hc_0000"] {
        let request = stranger.ask(Method::GET, "/v1/crews").header("Authorization", token);
        assert_eq!(refused(request).await, StatusCode::UNAUTHORIZED, "{token}");
    }
    assert_eq!(refused(stranger.ask(Method::GET, "/v1/crews")).await, StatusCode::UNAUTHORIZED);
    let stranger_told = recorded(&stage, after, "access_denied", |event| says(event, "crew:read")).await;

    let task = |body: &str| body.replace("CREW", r#""crew":"troupe""#).into_bytes();
    for (what, body, expected) in [
        ("a huge body", vec![b' '; 3 << 20], 413),
        ("deep JSON", task(&format!("{{CREW,\"input\":{}", "[".repeat(10_000))), 400),
        ("a key twice", task(r#"{CREW,CREW,"input":"x"}"#), 400),
        ("a foreign field", task(r#"{CREW,"input":"x","tenant":"others"}"#), 400),
        ("no JSON", b"crew=troupe".to_vec(), 400),
    ] {
        assert_eq!(stranger.status(Method::POST, "/v1/tasks", body).await, expected, "{what}");
    }
    for path in [
        "/v1/crews/%2e%2e/%2e%2e/etc/passwd",
        "//v1/crews",
        "/v1//crews",
        "/v1/crews/..%2ftroupe",
        "/../etc/passwd",
    ] {
        let status = stranger.status(Method::GET, path, Vec::new()).await;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    let get = || stranger.ask(Method::GET, "/v1/crews/troupe").bearer_auth(&stranger.admin);
    let overridden = get().header("X-HTTP-Method-Override", "POST").send().await.expect("an answer");
    assert_eq!(overridden.status(), StatusCode::OK, "it is a GET all the same");
    for (origin, method) in [("https://evil.example", Method::GET), ("null", Method::OPTIONS)] {
        let request = stranger.ask(method, "/v1/crews").bearer_auth(&stranger.admin).header("Origin", origin);
        let answer = request.header("Access-Control-Request-Method", "POST").send().await.expect("an answer");
        let allows = answer.headers().keys().any(|name| name.as_str().starts_with("access-control-"));
        assert!(!allows, "a page of another origin may read it");
    }
    // A form of another page cannot send JSON, and what it can send is not taken.
    let form = stranger.ask(Method::POST, "/v1/crews/troupe/disband").bearer_auth(&stranger.admin);
    let form = form.header("Content-Type", "text/plain").body("{}");
    assert_eq!(refused(form).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(stage.json(&["crew", "show", "troupe"]).await["status"], "running");
    told(
        "T43",
        "no token, huge and deep bodies, keys twice, paths with tricks, other origins",
        "4xx",
        stranger_told,
    );
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_asks_for_the_host_is_refused() {
    let stage = Stage::empty().await;
    let profile = |field: &str| {
        format!(
            "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {{name: evil}}\nspec:\n  \
             handler: {{command: [sh]}}\n  {field}\n"
        )
    };
    let fields = [
        "privileged: true",
        "hostNetwork: true",
        "volumes: [\"/:/host\"]",
        "mounts: [\"/var/run/docker.sock\"]",
        "capAdd: [SYS_ADMIN]",
        "devices: [/dev/kmsg]",
        "sysctls: {kernel.core_pattern: x}",
        "usernsMode: host",
    ];
    for field in fields {
        let file = stage.home.write("evil.yaml", profile(field));
        let said = stage.hypercode(&["profile", "apply", file.to_str().expect("text")]).await.refused(2);
        let name = field.split(':').next().expect("a name");
        assert!(said.contains(&format!("spec.{name}")), "{said}");
    }
    assert!(stage.api.list("/v1/profiles").await.is_empty());
    told_without(
        "T30",
        "profiles with privileges, the host's network, mounts, devices",
        "400 with the field's path",
        "nothing was done",
    );
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_writes_steers_nobodys_terminal() {
    let stage = Stage::with_crew().await;
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J<script>alert(1)</script>\u{202e}drawkcab\u{9b}31m";
    let fails = stage.submit(&json!({"do": "fail", "text": evil})).await;
    let ended: Value = stage.ended(&fails).await;
    assert!(text(&ended, "error").contains("<script>"), "{ended:#}");
    let echoes = stage.submit(&json!({"do": "echo", "text": evil})).await;
    stage.ended(&echoes).await;
    let mut shown = String::new();
    for args in
        [&["task", "show", &fails][..], &["task", "show", &echoes], &["task", "list"], &["audit", "tail"]]
    {
        let ran = stage.hypercode(args).await;
        shown += &format!("{}{}", ran.out, ran.err);
    }
    assert!(shown.contains("script"), "it was shown");
    for bad in ['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}'] {
        assert!(!shown.contains(bad), "{bad:?} came through: {}", shown.escape_debug());
    }
    let log = std::fs::read_to_string(stage.home.path("platform.log")).expect("a log");
    assert!(!log.contains('\u{202e}') && !log.contains("]0;owned\u{7}"), "it is in the platform's log");
    let position = recorded(&stage, 0, "task_failed", |_| true).await;
    told("T44", "escape sequences, markup and text that runs backwards", "shown, inert", position);
    stage.leave().await;
}
