//! What one tenant's people try with what is another's, and what somebody tries who has a role in one crew alone.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::stage::{CREW, Stage};
use crate::support::{self, Ran};
use crate::told::{head, text, told};

/// Somebody with a token.
struct Somebody {
    client: Client,
    address: String,
    secret: String,
    file: String,
}

impl Somebody {
    /// Who has this role in this scope.
    async fn with(stage: &Stage, name: &str, role: &str, scope: &str) -> Self {
        let principal = format!("user:{name}");
        let mint = ["token", "mint", "--role", role, "--scope", scope, "--principal", &principal];
        let minted = stage.json(&[&mint[..], &["--purpose", "an attack"]].concat()).await;
        let secret = text(&minted["body"], "secret").to_owned();
        let file = stage.home.write(&format!("{name}.token"), &secret);
        let client = Client::builder().no_proxy().tls_backend_preconfigured(hypercode::tls::none());
        let address = std::fs::read_to_string(stage.home.data().join("http.address")).expect("an address");
        Self {
            client: client.build().expect("a client"),
            address: address.trim().to_owned(),
            secret,
            file: file.to_str().expect("text").to_owned(),
        }
    }

    /// Somebody else at the same platform.
    fn alike(&self) -> Self {
        let Self { client, address, secret, file } = self;
        Self { client: client.clone(), address: address.clone(), secret: secret.clone(), file: file.clone() }
    }

    async fn run(&self, stage: &Stage, args: &[&str]) -> Ran {
        stage.hypercode(&[&["--token-file", self.file.as_str()], args].concat()).await
    }

    async fn json(&self, stage: &Stage, args: &[&str]) -> Value {
        self.run(stage, &[args, &["--output", "json"]].concat()).await.json()
    }

    /// Status and body of the answer to a request.
    async fn ask(&self, method: &Method, path: &str, body: &Value) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        let request = self.client.request(method.clone(), url).bearer_auth(&self.secret);
        let request = if *method == Method::GET { request } else { request.json(body) };
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// What there is of a kind for them.
    async fn list(&self, kind: &str) -> Value {
        let (status, listed) = self.ask(&Method::GET, &format!("/v1/{kind}?limit=500"), &json!({})).await;
        assert_eq!(status, 200, "{kind}: {listed}");
        serde_json::from_str(&listed).expect("JSON")
    }

    /// Assembles the crew `troupe`; its id.
    async fn assemble(&self, stage: &Stage) -> String {
        stage.home.write("deeds/deeds.py", support::DEEDS);
        let manifests = CREW.replace("@DIARY@", &stage.home.diary_file().display().to_string());
        let file = stage.home.write("crew.yaml", manifests);
        let made = self.json(stage, &["crew", "assemble", file.to_str().expect("text")]).await;
        text(&made, "id").to_owned()
    }
}

/// What there is of a tenant: a parameter of paths, its value, and one that never was.
async fn things(stage: &Stage, ann: &Somebody, crew: &str) -> Vec<(&'static str, String, String)> {
    let file = stage.home.write("report.txt", "for the eyes of acme alone");
    let kept = ann.json(stage, &["artifact", "put", file.to_str().expect("text")]).await;
    let ask = json!({"do": "ask", "key": "sure", "title": "Sure?"}).to_string();
    let task = ann.json(stage, &["task", "submit", "troupe", "--input", &ask]).await;
    let task = text(&task, "id").to_owned();
    let agents = ann.json(stage, &["agent", "list"]).await;
    let send = json!({"do": "send", "to": "worker", "text": "hello"});
    ann.run(stage, &["task", "submit", "troupe", "--wait", "--input", &send.to_string()]).await.ok();
    let messages = ann.list("messages").await;
    let id = |list: &Value| text(&list["items"][0], "id").to_owned();
    let none = |prefix: &str| format!("{prefix}_{}", "0".repeat(32));
    vec![
        ("crew", crew.to_owned(), none("cr")),
        ("agent", id(&agents), none("ag")),
        ("task", task, none("tk")),
        ("message", id(&messages), none("ms")),
        ("digest", text(&kept, "digest").to_owned(), "0".repeat(64)),
        ("tenant", "acme".to_owned(), "nobody".to_owned()),
    ]
}

/// A body that is legal for a route, so that it is its subject that the answer is about.
fn body(path: &str) -> Value {
    match path.rsplit('/').next() {
        Some("scale") => json!({"member": "worker", "replicas": 2}),
        Some("{key}") => json!({"action": "accept", "content": true}),
        _ => json!({}),
    }
}

/// Where a refusal says that it is recorded.
#[track_caller]
fn place(said: &str) -> u64 {
    let (_, position) = said.split_once("recorded at position ").unwrap_or_else(|| panic!("{said}"));
    position.trim().parse().expect("a position")
}

/// Ends what the tenants have, and the platform.
async fn leave(stage: Stage) {
    for tenant in ["acme", "globex"] {
        stage.hypercode(&["--tenant", tenant, "kill", "tenant", tenant, "--reason", "it is over"]).await;
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_tenants_is_as_good_as_not_there() {
    let stage = Stage::empty().await;
    let ann = Somebody::with(&stage, "ann", "tenant_admin", "tenant:acme").await;
    let eve = Somebody::with(&stage, "eve", "tenant_admin", "tenant:globex").await;
    let crew = ann.assemble(&stage).await;
    let own = eve.assemble(&stage).await;
    assert_ne!(crew, own, "a name is one's own in each tenant");
    let things = things(&stage, &ann, &crew).await;

    let api = stage.api.insist_get("/openapi.json").await;
    let mut tried = 0;
    for (path, operations) in api["paths"].as_object().expect("paths") {
        let Some((name, theirs, nobodys)) = things.iter().find(|it| path.contains(&format!("{{{}}}", it.0)))
        else {
            continue;
        };
        for method in operations.as_object().expect("operations").keys() {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let about = |value: &str| path.replace(&format!("{{{name}}}"), value).replace("{key}", "sure");
            let (status, said) = eve.ask(&method, &about(theirs), &body(path)).await;
            let (of_none, said_of_none) = eve.ask(&method, &about(nobodys), &body(path)).await;
            assert_eq!((status, of_none), (404, 404), "{method} {path}: {said} {said_of_none}");
            assert_eq!(said.replace(theirs, "…"), said_of_none.replace(nobodys, "…"), "{method} {path}");
            tried += 1;
        }
    }
    assert!(tried > 15, "{tried}");

    // Nothing of it is in any list, nor can it be found by whom it is of.
    for list in ["crews", "agents", "tasks", "messages", "approvals", "audit", "profiles"] {
        let listed = eve.list(list).await;
        for (_, theirs, _) in &things[..4] {
            assert!(!listed.to_string().contains(theirs.as_str()), "{theirs} in {list}: {listed:#}");
        }
        let names =
            listed["items"].as_array().expect("items").iter().filter_map(|item| item["tenant"].as_str());
        assert!(names.into_iter().all(|tenant| tenant == "globex"), "{list}: {listed:#}");
    }
    let (status, _) = eve.ask(&Method::GET, "/v1/events?after=0&until=1&whole=true", &json!({})).await;
    assert_eq!(status, 403, "the whole log");
    let (_, feed) =
        eve.ask(&Method::GET, &format!("/v1/events?after=0&until={}", head(&stage).await), &json!({})).await;
    assert!(feed.contains(&own) && !feed.contains(&crew), "{feed}");

    // Nor is it passed on by naming it.
    let digest = &things[4].1;
    let parts = json!({"parts": [{"url": format!("artifact:sha256:{digest}")}]});
    let submit = json!({"crew": "troupe", "input": parts});
    let (status, said) = eve.ask(&Method::POST, "/v1/tasks", &submit).await;
    assert!(status == 400 && said.contains("is not in the artifact store"), "{status} {said}");
    let (status, _) = ann.ask(&Method::POST, "/v1/tasks", &submit).await;
    assert!(status < 300, "whose it is may: {status}");

    // What takes a role in the other tenant is refused, and recorded with whoever tried it.
    let said = eve.run(&stage, &["--tenant", "acme", "crew", "list"]).await.refused(3);
    let position = place(&said);
    let told_of = eve.json(&stage, &["audit", "show", &position.to_string()]).await;
    assert_eq!(
        (text(&told_of, "kind"), text(&told_of, "tenant")),
        ("access_denied", "globex"),
        "{told_of:#}"
    );
    told(
        "T41",
        &format!("{tried} operations on what is another tenant's, and its lists and feed"),
        "404 and 403",
        position,
    );
    leave(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_role_in_one_crew_has_none_beside_it() {
    let stage = Stage::empty().await;
    let ann = Somebody::with(&stage, "ann", "tenant_admin", "tenant:acme").await;
    let crew = ann.assemble(&stage).await;
    let manifest = std::fs::read_to_string(stage.home.data().with_file_name("crew.yaml"));
    let other = manifest.expect("a manifest").replace("name: troupe", "name: chorus");
    let file = stage.home.write("chorus.yaml", other);
    let file = file.to_str().expect("text").to_owned();
    let chorus = text(&ann.json(&stage, &["crew", "assemble", &file]).await, "id").to_owned();

    let scope = format!("crew:acme/{chorus}");
    let dan = Somebody::with(&stage, "dan", "developer", &scope).await;
    let crews = dan.json(&stage, &["crew", "list"]).await;
    let names: Vec<&str> =
        crews["items"].as_array().expect("items").iter().map(|it| text(it, "name")).collect();
    assert_eq!(names, ["chorus"], "{crews:#}");
    dan.run(&stage, &["crew", "show", "troupe"]).await.refused(4);
    dan.run(&stage, &["task", "submit", "troupe", "--input", r#"{"do": "echo"}"#]).await.refused(4);
    dan.run(&stage, &["crew", "disband", &crew]).await.refused(4);
    let done =
        dan.json(&stage, &["task", "submit", "chorus", "--wait", "--input", r#"{"do": "echo"}"#]).await;
    assert_eq!(done["status"], "completed", "{done:#}");

    // What they put is theirs to read and to pass on to their crew; what others put is not.
    let put = async |who: &Somebody, content: &str| {
        let file = stage.home.write("kept.txt", content);
        text(&who.json(&stage, &["artifact", "put", file.to_str().expect("text")]).await, "digest").to_owned()
    };
    let (own, anns) = (put(&dan, "dan's").await, put(&ann, "ann's").await);
    dan.run(&stage, &["artifact", "get", &own]).await.ok();
    dan.run(&stage, &["artifact", "get", &anns]).await.refused(4);
    ann.run(&stage, &["artifact", "get", &own]).await.ok();

    // Nothing is changed by them that is the whole tenant's.
    let mut last = 0;
    let after = head(&stage).await;
    for denied in [
        &["crew", "assemble", file.as_str()][..],
        &["role", "grant", "user:dan", "tenant_admin"],
        &["kill", "tenant", "acme"],
    ] {
        let said = dan.run(&stage, denied).await.refused(3);
        last = place(&said);
        assert!(last > after, "{denied:?}: {said}");
    }
    // Nor does a tenant's administrator reach beyond the tenant.
    for (scope, role) in
        [("platform", "viewer"), ("tenant:globex", "viewer"), ("tenant:acme", "platform_admin")]
    {
        let said = ann.run(&stage, &["role", "grant", "user:ann", role, "--scope", scope]).await.refused(3);
        assert!(said.contains("recorded at position"), "{scope} {role}: {said}");
    }

    told(
        "T42",
        "with a role in one crew: another crew, the tenant; with one in a tenant: the platform",
        "404 and 403",
        last,
    );
    leave(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_they_asked_for_themselves() {
    let stage = Stage::empty().await;
    let ann = Somebody::with(&stage, "ann", "tenant_admin", "tenant:acme").await;
    ann.assemble(&stage).await;
    let bob = Somebody::with(&stage, "bob", "approver", "tenant:acme").await;
    let again = ["token", "mint", "--role", "developer", "--role", "approver", "--scope", "tenant:acme"];
    let dev =
        stage.json(&[&again[..], &["--principal", "user:dev", "--purpose", "an attack"]].concat()).await;
    let file = stage.home.write("dev.token", text(&dev["body"], "secret"));
    let dev =
        Somebody { secret: String::new(), file: file.to_str().expect("text").to_owned(), ..bob.alike() };

    let ask = json!({"do": "ask", "key": "sure", "title": "Sure?"}).to_string();
    let task = dev.json(&stage, &["task", "submit", "troupe", "--input", &ask]).await;
    let task = text(&task, "id").to_owned();
    support::eventually("the question", async || {
        let open = bob.json(&stage, &["approval", "list"]).await;
        open.to_string().contains(&task).then_some(())
    })
    .await;
    let said = dev.run(&stage, &["approval", "approve", &task, "sure"]).await.refused(3);
    assert!(said.contains("somebody else has to"), "{said}");
    bob.run(&stage, &["approval", "approve", &task, "sure"]).await.ok();
    told("T42", "to approve what one asked for", "403", place(&said));
    leave(stage).await;
}
