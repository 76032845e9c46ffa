use std::path::Path;

use events::store::Memory;
use events::{AgentId, CrewId, Incarnation, SandboxId};
use identity::Bearer;

use super::*;

async fn keyring(store: &Arc<Memory>, directory: &Path, shares: bool) -> Result<Arc<Keyring>, Problem> {
    let wrapping = seal::Keys::open(directory, &directory.join("master.key")).await.expect("keys");
    Keyring::open(Arc::clone(store) as Arc<dyn EventStore>, wrapping, shares).await
}

fn bearer() -> Bearer {
    Bearer {
        tenant: Tenant::default(),
        crew: CrewId::derive(&["crew"]),
        agent: AgentId::derive(&["agent"]),
        incarnation: Incarnation(1),
        sandbox: SandboxId::derive(&["sandbox"]),
    }
}

fn now_s() -> u64 {
    u64::try_from(Timestamp::now().millis() / 1_000).expect("after 1970")
}

fn token(keyring: &Keyring) -> String {
    keyring.agent_keys().mint(&bearer(), now_s()).expect("there is a key").text.to_string()
}

fn takes(keyring: &Keyring, token: &str) -> bool {
    keyring.agent_keys().verify(token, now_s()).is_ok()
}

fn rotate() -> KeyChange {
    KeyChange::Rotate { reason: "a test".to_owned() }
}

#[tokio::test]
async fn keys_outlive_the_platform_and_what_one_node_changes_the_other_follows() {
    let (store, home) = (Arc::new(Memory::new()), tempfile::tempdir().expect("a directory"));
    let one = keyring(&store, home.path(), true).await.expect("opened");
    let other = keyring(&store, home.path(), true).await.expect("opened");
    let first = token(&one);
    assert!(takes(&other, &first) && takes(&one, &token(&other)));
    one.change(&system(), &rotate()).await.expect("rotated");
    // The next key was known before it signed anything.
    assert!(takes(&other, &token(&one)) && takes(&one, &first));
    other.look().await.expect("the log is there");
    let active = one.state().await.expect("read").active().expect("one signs").made.key.clone();
    let revoke = KeyChange::Revoke { key: active, reason: "leaked".to_owned() };
    let second = token(&other);
    one.change(&system(), &revoke).await.expect("revoked");
    assert!(!takes(&one, &second) && takes(&one, &first) && takes(&one, &token(&one)));
    other.look().await.expect("the log is there");
    assert!(!takes(&other, &second));
}

#[tokio::test]
async fn the_same_request_rotates_once() {
    let (store, home) = (Arc::new(Memory::new()), tempfile::tempdir().expect("a directory"));
    let keyring = keyring(&store, home.path(), false).await.expect("opened");
    let caller = Caller { idempotency_key: Some("k".into()), ..system() };
    let first = keyring.change(&caller, &rotate()).await.expect("rotated");
    let again = keyring.change(&caller, &rotate()).await.expect("it is so already");
    assert_eq!((first.position, first.body), (again.position, again.body));
    let other = KeyChange::Rotate { reason: "another".to_owned() };
    let refused = keyring.change(&caller, &other).await.expect_err("the key was used for something else");
    assert_eq!(refused.kind, ProblemKind::KeyConflict);
}

#[tokio::test]
async fn no_secret_half_is_in_the_log() {
    let (store, home) = (Arc::new(Memory::new()), tempfile::tempdir().expect("a directory"));
    let keyring = keyring(&store, home.path(), false).await.expect("opened");
    let state = keyring.state().await.expect("read");
    let log: String = store
        .read(Position(0), 100)
        .await
        .expect("read")
        .iter()
        .map(|event| event.payload.to_string())
        .collect();
    for key in state.keys.values() {
        let seed = keyring.opened(key).expect("ours").seed();
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*seed);
        assert!(!log.contains(&base64) && !log.contains(&hex::encode(*seed)));
        assert!(log.contains(&key.made.public));
    }
}

#[tokio::test]
async fn a_lost_master_key_costs_new_keys_and_no_agent_that_runs() {
    let store = Arc::new(Memory::new());
    let (home, elsewhere) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let before = token(&keyring(&store, home.path(), false).await.expect("opened"));
    let refused = keyring(&store, elsewhere.path(), true).await.err().expect("others sign with the old one");
    assert!(refused.detail.contains("master_key_file"), "{refused}");
    let keyring = keyring(&store, elsewhere.path(), false).await.expect("opened");
    assert!(takes(&keyring, &before) && takes(&keyring, &token(&keyring)));
}
