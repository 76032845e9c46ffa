//! Attacks on a running platform: each is tried for real, and has to be refused, and recorded where something of it can be.
//!
//! Each prints one line: what was tried, how it was refused, and where the log tells of it. `docs/attacks.md` lists them
//! all, with those that are tried elsewhere. To see the lines: `cargo test --test attacks -- --nocapture`.

#[path = "attacks/canaries.rs"]
mod canaries;
#[path = "attacks/containers.rs"]
mod containers;
#[path = "attacks/frames.rs"]
mod frames;
#[path = "attacks/keys.rs"]
mod keys;
#[path = "attacks/kill.rs"]
mod kill;
#[path = "attacks/kill_states.rs"]
mod kill_states;
#[path = "attacks/limits.rs"]
mod limits;
#[path = "attacks/link_misuse.rs"]
mod link_misuse;
#[path = "attacks/links.rs"]
mod links;
#[path = "attacks/requests.rs"]
mod requests;
#[path = "attacks/servers.rs"]
mod servers;
#[allow(dead_code, reason = "shared with the tests of the whole, which use all of it")]
#[path = "e2e/stage.rs"]
mod stage;
#[path = "support/support.rs"]
mod support;
#[path = "attacks/tenants.rs"]
mod tenants;
#[path = "attacks/told.rs"]
mod told;
#[allow(dead_code, reason = "shared with the tests of the whole, which use all of it")]
#[path = "e2e/vault.rs"]
mod vault;
