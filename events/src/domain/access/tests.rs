use super::*;
use crate::domain::driven::Driven;

fn minted(token: &str, holder: &str, roles: &[&str]) -> TokenMinted {
    TokenMinted {
        token: token.to_owned(),
        holder: Principal::user(holder),
        purpose: "a test".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        hash: "$argon2id$".to_owned(),
        expires_at_ms: 5_000_000,
        lifetime_ms: None,
    }
}

fn granted(principal: &str, role: &str) -> RoleGranted {
    RoleGranted { principal: Principal::user(principal), role: role.to_owned() }
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
    let withdraw =
        Command::Withdraw(RoleRevoked { principal: Principal::user("eve"), role: "viewer".into() });
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
