use super::*;
use crate::domain::driven::Driven;

fn minted(token: &str, holder: &str, roles: &[&str]) -> TokenMinted {
    TokenMinted {
        token: token.to_owned(),
        holder: Principal::user(holder),
        purpose: "a test".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        scope: Scope::Platform,
        hash: "$argon2id$".to_owned(),
        expires_at_ms: 5_000_000,
        lifetime_ms: None,
    }
}

fn granted(principal: &str, role: &str) -> RoleGranted {
    RoleGranted { principal: Principal::user(principal), role: role.to_owned(), scope: Scope::Platform }
}

fn within(scope: &str, granted: RoleGranted) -> RoleGranted {
    RoleGranted { scope: scope.parse().expect("a scope"), ..granted }
}

#[test]
fn a_token_brings_its_holder_the_roles_that_it_is_for() {
    let mut access = Driven::<Access>::new();
    access.give(&Command::Grant(granted("eve", "viewer"))).expect("granted");
    let events = access.give(&Command::Mint(minted("t1", "eve", &["auditor", "viewer"]))).expect("minted");
    assert_eq!(
        events,
        [granted("eve", "auditor").into(), minted("t1", "eve", &["auditor", "viewer"]).into()]
    );
    assert!(access.state.tokens["t1"].is_live(access.now_ms));
    assert!(!access.state.tokens["t1"].is_live(5_000_000));
    access.assert_folds_the_same();
}

#[test]
fn what_is_revoked_stays_revoked_and_is_still_known() {
    let mut access = Driven::<Access>::new();
    access.give(&Command::Mint(minted("t1", "eve", &["viewer"]))).expect("minted");
    let revoke = Command::Revoke(TokenRevoked { token: "t1".into(), reason: "lost".into() });
    assert_eq!(access.give(&revoke).expect("revoked").len(), 1);
    assert_eq!(access.give(&revoke).expect("it is so already"), []);
    assert!(!access.state.tokens["t1"].is_live(access.now_ms));
    let withdraw = Command::Withdraw(RoleRevoked {
        principal: Principal::user("eve"),
        role: "viewer".into(),
        scope: Scope::Platform,
    });
    access.give(&withdraw).expect("withdrawn");
    assert!(access.state.roles.is_empty());
    assert!(matches!(access.give(&withdraw), Err(Rejection::NoRole { .. })));
    let unknown = Command::Revoke(TokenRevoked { token: "t9".into(), reason: String::new() });
    assert_eq!(access.give(&unknown), Err(Rejection::NoToken { token: "t9".into() }));
    access.assert_folds_the_same();
}

#[test]
fn tokens_are_bounded_by_those_that_live() {
    let mut state = State::default();
    for number in 0..TOKENS_MAX {
        state = Access::evolve(state, &minted(&number.to_string(), "eve", &[]).into());
    }
    let context = |now_ms: i64| Context { now: crate::Timestamp(now_ms * 1_000), seed: 0 };
    let mint = Command::Mint(minted("more", "eve", &[]));
    assert_eq!(Access::decide(&state, &mint, &context(1)), Err(Rejection::Full));
    assert!(Access::decide(&state, &mint, &context(5_000_000)).is_ok());
}

#[test]
fn events_that_name_no_scope_mean_the_platform_and_are_written_as_they_were() {
    let old = r#"{"principal":"user:eve","role":"viewer"}"#;
    let event: RoleGranted = serde_json::from_str(old).expect("an old event");
    assert_eq!(
        (&event, serde_json::to_string(&event).expect("JSON").as_str()),
        (&granted("eve", "viewer"), old)
    );
    let scoped = within("crew:acme/cr_1", granted("eve", "viewer"));
    let text = serde_json::to_string(&scoped).expect("JSON");
    assert!(text.contains(r#""scope":"crew:acme/cr_1""#), "{text}");
    assert_eq!(serde_json::from_str::<RoleGranted>(&text).expect("a new event"), scoped);
}

#[test]
fn a_role_in_one_scope_is_none_in_another() {
    let mut access = Driven::<Access>::new();
    access.give(&Command::Grant(within("tenant:acme", granted("eve", "viewer")))).expect("granted");
    access.give(&Command::Grant(within("tenant:globex", granted("eve", "viewer")))).expect("granted");
    let withdraw = |scope: &str| {
        let RoleGranted { principal, role, scope } = within(scope, granted("eve", "viewer"));
        Command::Withdraw(RoleRevoked { principal, role, scope })
    };
    assert!(matches!(access.give(&withdraw("platform")), Err(Rejection::NoRole { .. })));
    access.give(&withdraw("tenant:acme")).expect("withdrawn");
    let eve = Principal::user("eve");
    let has = |scope: &str| access.state.has(&eve, "viewer", &scope.parse().expect("a scope"));
    assert!(!has("tenant:acme") && has("tenant:globex"));
    // A token of a narrow scope brings nothing to who has the role in a wider one.
    let token = TokenMinted {
        scope: "crew:globex/cr_1".parse().expect("a scope"),
        ..minted("t1", "eve", &["viewer"])
    };
    assert_eq!(access.give(&Command::Mint(token.clone())).expect("minted"), [token.into()]);
    access.assert_folds_the_same();
}

#[test]
fn a_tenant_fills_no_more_than_its_own_room() {
    let mut state = State::default();
    for number in 0..OF_A_TENANT_MAX {
        let scoped = within("tenant:acme", granted(&format!("u{number}"), "viewer"));
        state = Access::evolve(state, &scoped.into());
    }
    let context = Context { now: crate::Timestamp(0), seed: 0 };
    let grant = |scope: &str| Command::Grant(within(scope, granted("one-more", "viewer")));
    for full in ["tenant:acme", "crew:acme/cr_1"] {
        assert_eq!(Access::decide(&state, &grant(full), &context), Err(Rejection::Full), "{full}");
    }
    for free in ["tenant:globex", "platform"] {
        assert!(Access::decide(&state, &grant(free), &context).is_ok(), "{free}");
    }
}
