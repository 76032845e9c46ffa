//! Secrets are searched for wherever they could have got to: in every file, log, page of a database, export and process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use tokio::task::JoinHandle;

use crate::containers::tokens;
use crate::stage::Stage;
use crate::support::containers::{containers_of, docker, is_available, with_images};
use crate::support::{Home, Issuer};
use crate::told::{recorded, told};
use crate::vault::{Canaries, done, holder, set, stage_with};

/// How a value looks, wherever it stands in what was encoded.
fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![value.to_vec(), hex::encode(value).into_bytes()];
    for before in 0..3 {
        let bytes = [&vec![0; before][..], value].concat();
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            // What stands at either end depends on what is beside it.
            let text = engine.encode(&bytes).into_bytes();
            forms.push(text[(before * 8).div_ceil(6)..text.len() - 2].to_vec());
        }
    }
    forms
}

fn has(bytes: &[u8], form: &[u8]) -> bool {
    bytes.windows(form.len()).any(|window| window == form)
}

/// What is looked for, by name, in all its forms.
struct Sought(BTreeMap<String, Vec<Vec<u8>>>);

impl Sought {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        assert!(value.as_ref().len() > 12, "{name} is too short to be looked for");
        self.0.entry(name.to_owned()).or_default().extend(forms(value.as_ref()));
    }

    /// A private key: what is secret of it, and some of the text in which it is kept.
    fn add_key(&mut self, name: &str, pem: &str) {
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let key = STANDARD.decode(&text).expect("PEM");
        // Behind what all keys of its kind begin with (RFC 5915) are the 32 bytes that are the key.
        let begin =
            key.windows(3).position(|found| found == [0x02, 0x01, 0x01]).expect("a key of a curve") + 5;
        self.add(name, &key[begin..begin + 32]);
        self.add(name, &text[begin.div_ceil(3) * 4..][..40]);
    }

    /// Which of them are in these bytes.
    fn found(&self, bytes: &[u8]) -> Vec<&str> {
        let found = self.0.iter().filter(|(_, forms)| forms.iter().any(|form| has(bytes, form)));
        found.map(|(name, _)| name.as_str()).collect()
    }

    /// Fails if one is in these bytes that may not be there.
    fn check(&self, place: &str, bytes: &[u8], may: &[&str]) {
        let found: Vec<&str> = self.found(bytes).into_iter().filter(|name| !may.contains(name)).collect();
        assert!(found.is_empty(), "{found:?} in {place}");
    }

    /// Searches every file of a home. The platform's own keys and tokens are each in one file that nobody else can read, and what the
    /// test wrote is where it did.
    fn check_files(&self, home: &Home) {
        let mut waiting = vec![home.path("")];
        let mut searched = 0;
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
                let path = entry.path();
                let kind = entry.file_type().expect("a kind");
                if kind.is_dir() && path != home.path("secrets") {
                    waiting.push(path);
                } else if kind.is_file() {
                    let may: &[&str] = match path.strip_prefix(home.data()).ok().and_then(Path::to_str) {
                        Some("admin.token") => &["admin token"],
                        Some("master.key") => &["master key"],
                        Some(name) if name.ends_with("/work/.secrets/FROM_FILE") => &["FROM_FILE"],
                        _ => &[],
                    };
                    // What is removed in between holds nothing.
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    self.check(&path.display().to_string(), &bytes, may);
                    searched += 1;
                }
            }
        }
        assert!(searched > 10, "the platform's files are there to be searched");
    }

    /// Searches what every process was started with.
    fn check_processes(&self, home: &Home) {
        let mut holders = 0;
        for process in home.processes() {
            let read =
                |file: &str| std::fs::read(format!("/proc/{}/{file}", process.pid)).unwrap_or_default();
            let (command, environment) = (read("cmdline"), read("environ"));
            self.check(&process.command, &command, &[]);
            let is_holder = has(&environment, b"HYPERCODE_MEMBER=holder");
            let may: &[&str] = match is_holder {
                true => &["FROM_ENV", "FROM_VAULT", "FROM_STORE"],
                false if has(&command, b"\0up\0") => &["FROM_ENV", "database password"],
                false => &[],
            };
            self.check(&format!("the environment of {process:?}"), &environment, may);
            holders += usize::from(is_holder);
        }
        // What runs in a container does not know this home; the daemon shows it.
        assert!(holders > 0 || home.is_in_containers(), "the holder runs");
    }
}

/// The first bytes of every agent's token.
fn token_head() -> String {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"agent+jwt""#);
    head[..head.len() - 2].to_owned()
}

/// All that a user can be shown.
async fn shown(stage: &Stage) -> Vec<(String, String)> {
    let agent = holder(stage, "is there", |_| true).await;
    let id = agent["id"].as_str().expect("an id").to_owned();
    let bundle = stage.home.path("evidence");
    let bundle = bundle.to_str().expect("text");
    let mut shown = Vec::new();
    for args in [
        &["audit", "export", "--out", bundle][..],
        &["agent", "logs", &id],
        &["agent", "show", &id, "--output", "json"],
        &["audit", "tail", "--output", "json"],
        &["crew", "list", "--output", "json"],
        &["doctor", "--output", "json"],
        &["profile", "show", "holder", "--output", "json"],
        &["replay", "--entity", &format!("agent/{id}"), "--output", "json"],
        &["secret", "list", "--output", "json"],
        &["task", "list", "--output", "json"],
    ] {
        let ran = stage.hypercode(args).await;
        shown.push((args.join(" "), format!("{}{}", ran.out, ran.err)));
    }
    for path in ["/metrics", "/v1/audit", "/v1/messages", "/v1/agents", "/v1/tasks", "/openapi.json"] {
        shown.push((path.to_owned(), stage.api.insist_get(path).await.to_string()));
    }
    let containers = if stage.home.is_in_containers() { containers_of(&stage.home) } else { Vec::new() };
    for container in &containers {
        for what in ["inspect", "logs", "top", "diff"] {
            shown.push((format!("docker {what}"), docker(&[what, container])));
        }
    }
    shown
}

/// Collects the tokens with which runners come over a network, until it is dropped.
struct Watched {
    found: Arc<Mutex<BTreeSet<String>>>,
    watching: JoinHandle<()>,
}

impl Watched {
    fn new(home: &Home) -> Self {
        let (found, run_dir) = (Arc::<Mutex<BTreeSet<String>>>::default(), home.run_dir());
        let theirs = Arc::clone(&found);
        let watching = tokio::spawn(async move {
            loop {
                let mut lying = BTreeMap::new();
                tokens(&run_dir, &mut lying);
                theirs.lock().expect("nobody panics with it").extend(lying.into_values());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { found, watching }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Somebody of an outside issuer, who may look and may not change a key. Their token.
async fn outsider(stage: &Stage, issuer: &Issuer) -> String {
    let token = issuer.token(&["audit"]);
    let file = stage.home.write("secrets/outsider.token", &token);
    let by = ["--token-file", file.to_str().expect("text")];
    stage.hypercode(&[&by[..], &["whoami"]].concat()).await.ok();
    stage.hypercode(&[&by[..], &["key", "rotate"]].concat()).await.refused(3);
    token
}

async fn everything_is_searched(mut home: Home, password: Option<&str>) {
    let (canaries, issuer) = (Canaries::new(), Issuer::new());
    let (certificate, key) = home.certify();
    let more = format!("{certificate} {}", issuer.known_to(&home));
    let watched = Watched::new(&home);
    let (stage, crew) = stage_with(home, &canaries, &more).await;
    set(&stage, canaries.of("FROM_STORE")).await.ok();
    stage.hypercode(&["crew", "assemble", &crew]).await.ok();
    let minted = stage.json(&["token", "mint", "--role", "developer"]).await;
    let token = minted["body"]["secret"].as_str().expect("a secret").to_owned();
    let file = stage.home.write("secrets/token", &token);
    let by = ["--token-file", file.to_str().expect("text")];
    stage.hypercode(&[&by[..], &["secret", "delete", "canary"]].concat()).await.refused(3);
    let outsider = outsider(&stage, &issuer).await;
    for deed in ["tell", "fail", "die"] {
        done(&stage, deed).await;
    }

    let data = |name: &str| std::fs::read_to_string(stage.home.data().join(name)).expect("a file");
    let mut sought = Sought::new();
    for (name, value) in &canaries.0 {
        sought.add(name, value);
    }
    sought.add("admin token", data("admin.token").trim());
    sought.add("master key", data("master.key").trim());
    sought.add("API token", token.rsplit('_').next().expect("a last part"));
    sought.add("agent token", token_head());
    sought.add("outsider's token", outsider.rsplit('.').next().expect("a signature"));
    sought.add_key("TLS key", &key);
    if let Some(password) = password {
        sought.add("database password", password);
    }
    holder(&stage, "is ready", |agent| agent["status"] == "ready").await;
    for used in watched.found.lock().expect("nobody panics with it").iter() {
        sought.add("runner's token", used);
    }
    drop(watched);
    let is_there = sought.0.contains_key("runner's token");
    assert_eq!(is_there, stage.home.is_in_containers(), "runners over a network have tokens");
    sought.check_processes(&stage.home);
    for (place, text) in shown(&stage).await {
        sought.check(&place, text.as_bytes(), &[]);
    }
    sought.check_files(&stage.home);
    if stage.home.is_on_postgres() {
        let texts = canaries.0.values().map(String::as_str).chain([token.as_str(), &outsider]);
        stage.home.no_table_holds(&texts.collect::<Vec<_>>()).await;
    }
    let position = recorded(&stage, 0, "secret_resolved", |_| true).await;

    let crews = stage.api.list("/v1/crews").await;
    let id = crews[0]["id"].as_str().expect("an id");
    stage.hypercode(&["crew", "disband", id]).await.ok();
    stage.api.crew_gone(id).await;
    let Stage { home, up, .. } = stage;
    assert!(up.stop().await.success());
    home.processes_end().await;
    sought.check_files(&home);
    let names: Vec<&str> = sought.0.keys().map(String::as_str).collect();
    told(
        "T58",
        &format!("to find {} wherever it could be", names.join(", ")),
        "none where it may not be",
        position,
    );
}

/// T58: a platform with a secret of every kind, crews that say them wherever they can, and a search of all that is left.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_where_it_may_not_be() {
    everything_is_searched(Home::new(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_where_it_may_not_be_on_postgres() {
    let password = format!("canary{}", uuid::Uuid::new_v4().simple());
    everything_is_searched(Home::on_postgres(&password).await, Some(&password)).await;
}

/// The same in containers over TCP: what the daemon knows is searched too.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_where_it_may_not_be_in_containers() {
    if !is_available() {
        return;
    }
    let home = Home::over_tcp();
    with_images(&home).await;
    everything_is_searched(home, None).await;
}

/// A search that finds nothing must be one that would.
#[test]
fn a_value_is_found_in_each_of_its_forms() {
    let mut sought = Sought::new();
    sought.add("it", "canary-of-some-length");
    for text in ["x canary-of-some-length y".to_owned(), hex::encode("canary-of-some-length")] {
        assert_eq!(sought.found(text.as_bytes()), ["it"], "{text}");
    }
    for before in ["", "a", "ab", "abc"] {
        let text = STANDARD_NO_PAD.encode(format!("{before}canary-of-some-length and more"));
        assert_eq!(sought.found(text.as_bytes()), ["it"], "{text}");
    }
    assert!(sought.found(b"canary-of-some-other-length").is_empty());
}
