use std::collections::BTreeSet;

use events::Recorded;
use events::api::Caller;
use events::store::Memory;
use identity::Scope;

use super::*;

/// Access to a log in memory, and to the same log from another node.
struct Gate {
    store: Arc<Memory>,
    access: Access,
    other: Access,
}

impl Gate {
    fn new() -> Self {
        let store = Arc::new(Memory::new());
        let access = || Access::new(Arc::clone(&store) as Arc<dyn EventStore>, Token::random(), 50);
        Self { access: access(), other: access(), store }
    }

    async fn change(&self, by: &Identity, change: Change) -> Result<serde_json::Value, Problem> {
        self.change_under(by, None, change).await
    }

    async fn change_under(
        &self,
        by: &Identity,
        key: Option<&str>,
        change: Change,
    ) -> Result<serde_json::Value, Problem> {
        let caller = Caller {
            tenant: Tenant::default(),
            principal: by.principal.clone(),
            idempotency_key: key.map(Arc::from),
            traceparent: None,
        };
        self.access.change(&caller, by, &Scope::Platform, change).await.map(|reply| reply.body)
    }

    async fn mint(&self, name: &str, roles: &[Role]) -> String {
        let body = self.change(&administrator(), mint(name, roles)).await.expect("minted");
        body["secret"].as_str().expect("a secret").to_owned()
    }

    async fn log(&self) -> Vec<Recorded> {
        self.store.read(events::Position(0), 1_000).await.expect("the log")
    }
}

fn everywhere(role: Role) -> [Grant; 1] {
    [Grant::everywhere(role)]
}

fn mint(name: &str, roles: &[Role]) -> Change {
    Change::Mint {
        holder: Principal::user(name),
        purpose: "a test".to_owned(),
        roles: BTreeSet::from_iter(roles.iter().copied()),
        scope: Scope::Platform,
        lifetime_ms: 60_000,
    }
}

fn id(secret: &str) -> String {
    ApiToken::parse(secret).expect("a token").id().to_string()
}

#[tokio::test]
async fn a_token_opens_on_every_node_what_its_roles_permit() {
    let gate = Gate::new();
    let secret = gate.mint("carol", &[Role::Auditor]).await;
    for access in [&gate.access, &gate.other] {
        let carol = access.identify(&secret).await.expect("known");
        assert_eq!(
            (carol.principal.as_str(), &carol.grants[..]),
            ("user:carol", &everywhere(Role::Auditor)[..])
        );
        assert_eq!(carol.token.map(|token| token.to_string()), Some(id(&secret)));
    }
    let changed = format!("{}{}", &secret[..secret.len() - 1], if secret.ends_with('0') { '1' } else { '0' });
    for stranger in [changed.as_str(), &ApiToken::generate().expose(), "hct_", "hc_else", ""] {
        let refused = gate.access.identify(stranger).await.expect_err("a stranger");
        assert_eq!(refused.kind, ProblemKind::Unauthenticated, "{stranger}");
    }
}

#[tokio::test]
async fn a_token_reaches_no_further_than_it_is_for_and_its_holder_may() {
    let gate = Gate::new();
    let narrow = gate.mint("carol", &[Role::Viewer]).await;
    let grant =
        Change::Grant { principal: Principal::user("carol"), role: Role::Developer, scope: Scope::Platform };
    gate.change(&administrator(), grant).await.expect("granted");
    assert_eq!(gate.access.identify(&narrow).await.expect("known").grants, everywhere(Role::Viewer));
    let withdraw =
        Change::Withdraw { principal: Principal::user("carol"), role: Role::Viewer, scope: Scope::Platform };
    gate.change(&administrator(), withdraw).await.expect("withdrawn");
    assert_eq!(gate.access.identify(&narrow).await.expect("known, and may do nothing").grants, []);
}

#[tokio::test]
async fn what_is_revoked_opens_nothing_from_then_on() {
    let gate = Gate::new();
    let secret = gate.mint("carol", &[Role::Viewer]).await;
    gate.access.identify(&secret).await.expect("known");
    let revoke = Change::Revoke { token: id(&secret), reason: "lost".to_owned() };
    gate.change(&administrator(), revoke).await.expect("revoked");
    assert!(gate.access.identify(&secret).await.is_err());
    let ended = Change::Mint {
        holder: Principal::user("dave"),
        purpose: String::new(),
        roles: BTreeSet::from([Role::Viewer]),
        scope: Scope::Platform,
        lifetime_ms: -1,
    };
    let body = gate.change(&administrator(), ended).await.expect("minted");
    assert!(gate.access.identify(body["secret"].as_str().expect("a secret")).await.is_err());
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let gate = Gate::new();
    let secret = gate.mint("lead", &[Role::TenantAdmin]).await;
    let lead = gate.access.identify(&secret).await.expect("known");
    gate.change(&lead, mint("dev", &[Role::Developer])).await.expect("within the lead's own");
    let before = gate.log().await.len();
    let refused = gate.change(&lead, mint("root", &[Role::PlatformAdmin])).await.expect_err("too much");
    assert_eq!(refused.kind, ProblemKind::Denied);
    assert!(refused.detail.contains("audit:checkpoint"), "{refused}");
    assert_eq!(gate.log().await.len(), before);
}

#[tokio::test]
async fn nobody_gives_what_was_taken_from_them_since_they_were_let_in() {
    let gate = Gate::new();
    let secret = gate.mint("lead", &[Role::TenantAdmin]).await;
    let lead = gate.access.identify(&secret).await.expect("known");
    let withdraw = Change::Withdraw {
        principal: Principal::user("lead"),
        role: Role::TenantAdmin,
        scope: Scope::Platform,
    };
    gate.change(&administrator(), withdraw).await.expect("withdrawn");
    let refused =
        gate.change(&lead, mint("friend", &[Role::TenantAdmin])).await.expect_err("not theirs any more");
    assert_eq!(refused.kind, ProblemKind::Denied, "{refused}");
    let revoke = Change::Revoke { token: id(&secret), reason: "left".to_owned() };
    gate.change(&administrator(), revoke).await.expect("revoked");
    let refused = gate.change(&lead, mint("friend", &[Role::Viewer])).await.expect_err("let in no more");
    assert_eq!(refused.kind, ProblemKind::Unauthenticated, "{refused}");
}

#[tokio::test]
async fn the_same_key_mints_one_token_and_tells_its_secret_once() {
    let gate = Gate::new();
    let admin = administrator();
    let first = gate.change_under(&admin, Some("k"), mint("carol", &[Role::Viewer])).await.expect("minted");
    let again =
        gate.change_under(&admin, Some("k"), mint("carol", &[Role::Viewer])).await.expect("told again");
    assert_eq!((&again["token"], &again["secret"]), (&first["token"], &serde_json::Value::Null));
    let withdraw = || Change::Withdraw {
        principal: Principal::user("carol"),
        role: Role::Viewer,
        scope: Scope::Platform,
    };
    for _ in 0..2 {
        let done = gate.change_under(&admin, Some("w"), withdraw()).await.expect("the first outcome");
        assert_eq!(done["changed"], true);
    }
    let other =
        gate.change_under(&admin, Some("k"), mint("dave", &[Role::Viewer])).await.expect_err("another");
    assert_eq!(other.kind, ProblemKind::KeyConflict);
    let mut longer = mint("carol", &[Role::Viewer]);
    if let Change::Mint { lifetime_ms, .. } = &mut longer {
        *lifetime_ms += 1;
    }
    let other = gate.change_under(&admin, Some("k"), longer).await.expect_err("another");
    assert_eq!(other.kind, ProblemKind::KeyConflict);
    assert_eq!(gate.access.state().await.expect("read").tokens.len(), 1);
}

#[tokio::test]
async fn many_changes_at_once_all_happen_and_no_secret_is_in_the_log() {
    let gate = Gate::new();
    let names = ["a", "b", "c"];
    let secrets = futures_util::future::join_all(names.map(|name| gate.mint(name, &[Role::Viewer]))).await;
    assert_eq!(gate.other.state().await.expect("read").tokens.len(), names.len());
    let log: String = gate.log().await.iter().map(|event| event.payload.to_string()).collect();
    for secret in secrets {
        let (_, tail) = secret.rsplit_once('_').expect("a token has parts");
        assert!(!log.contains(tail));
    }
}

#[tokio::test]
async fn what_was_can_be_asked_for_later() {
    let gate = Gate::new();
    gate.mint("carol", &[Role::Viewer]).await;
    let then = gate.log().await.last().expect("an event").recorded_at;
    let withdraw =
        Change::Withdraw { principal: Principal::user("carol"), role: Role::Viewer, scope: Scope::Platform };
    gate.change(&administrator(), withdraw).await.expect("withdrawn");
    assert!(gate.access.state().await.expect("read").roles.is_empty());
    let state = gate.access.state_at(then).await.expect("read");
    assert!(state.has(&Principal::user("carol"), "viewer", &Scope::Platform));
    assert!(gate.access.state_at(Timestamp(then.0 - 1_000_000)).await.expect("read").tokens.is_empty());
}

fn scope(text: &str) -> Scope {
    text.parse().expect("a scope")
}

#[tokio::test]
async fn a_token_reaches_no_further_than_its_scope() {
    let gate = Gate::new();
    let mut change = mint("carol", &[Role::Developer]);
    if let Change::Mint { scope: of, .. } = &mut change {
        *of = scope("tenant:acme");
    }
    let minted = gate.change(&administrator(), change).await.expect("minted");
    let secret = minted["secret"].as_str().expect("a secret");
    let there = [Grant { role: Role::Developer, scope: scope("tenant:acme") }];
    for wider in ["platform", "tenant:globex"] {
        let principal = Principal::user("carol");
        let grant = Change::Grant { principal, role: Role::Developer, scope: scope(wider) };
        gate.change(&administrator(), grant).await.expect("granted");
        assert_eq!(gate.access.identify(secret).await.expect("known").grants, there, "{wider}");
    }
    let carol = gate.access.identify(secret).await.expect("known");
    assert_eq!(carol.only_tenant(), Some(&"acme".parse().expect("a tenant")));
}

#[tokio::test]
async fn a_tenants_admin_gives_and_takes_in_the_tenant_and_nowhere_else() {
    let gate = Gate::new();
    let lead = Identity {
        grants: vec![Grant { role: Role::TenantAdmin, scope: scope("tenant:acme") }],
        principal: Principal::user("lead"),
        expires_at: Some(Timestamp(i64::MAX)),
        mapped: vec![Grant { role: Role::TenantAdmin, scope: scope("tenant:acme") }],
        token: None,
    };
    let grant = |place: &str| Change::Grant {
        principal: Principal::user("dev"),
        role: Role::Operator,
        scope: scope(place),
    };
    for within in ["tenant:acme", "crew:acme/cr_1"] {
        gate.change(&lead, grant(within)).await.expect(within);
    }
    for beyond in ["platform", "tenant:globex", "crew:globex/cr_1"] {
        let refused = gate.change(&lead, grant(beyond)).await.expect_err(beyond);
        assert_eq!(refused.kind, ProblemKind::Denied, "{beyond}: {refused}");
    }
    // A token of another tenant is as good as none.
    let mut theirs = mint("eve", &[Role::Viewer]);
    if let Change::Mint { scope: of, .. } = &mut theirs {
        *of = scope("tenant:globex");
    }
    let minted = gate.change(&administrator(), theirs).await.expect("minted");
    let revoke = |token: &str| Change::Revoke { token: token.to_owned(), reason: String::new() };
    let token = minted["token"].as_str().expect("an id");
    let foreign = gate.change(&lead, revoke(token)).await.expect_err("not theirs");
    let unknown = gate.change(&lead, revoke("0011223344556677")).await.expect_err("not there");
    assert_eq!((foreign.kind, unknown.kind), (ProblemKind::NotFound, ProblemKind::NotFound));
    assert_eq!(foreign.detail.replace(token, "…"), unknown.detail.replace("0011223344556677", "…"));
}
