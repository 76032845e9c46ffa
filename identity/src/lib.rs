//! Who asks, by which token, and what they may do: no IO, so that every door decides alike.
//!
//! ```text
//!   header --ApiToken--> token, verified --roles of its principal--> grants --is_permitted, sight--> yes or no, of what
//!   header --UserKeys--> Verified<UserToken> --groups, roles--> grants --is_permitted, sight--> yes or no, of what
//!   link, door --AgentKeys--> Verified<AgentToken> --its agent, life and sandbox--> yes or no
//! ```
//!
//! Nothing is allowed that no role permits where it was given: there are no rules that deny, and the roles of a principal add up. Tokens of
//! agents and tokens of people are different types, checked with different keys: one never passes for the other.

mod agent;
mod compact;
mod grant;
mod key;
mod permission;
mod role;
mod token;
mod user;
mod verified;

pub use agent::{AgentKeys, AgentToken, Bearer, Jwks, KeySet, LIFETIME_S_MAX, Minted, NoKey, Verb};
pub use compact::{Fault, LEEWAY_S, TOKEN_BYTES_MAX};
pub use events::domain::access::{Scope, UnknownScope};
pub use grant::{Grant, Sight, UnknownGrant, is_permitted, missing_of, sight};
pub use key::{Jwk, Kid, MalformedKey, PublicKey, SEED_BYTES, SigningKey};
pub use permission::{Level, PERMISSIONS, level_of};
pub use role::{Role, UnknownRole};
pub use token::{ApiToken, HashError, MalformedToken, TokenId};
pub use user::{
    Algorithm, Issuer, KeySetError, UnknownAlgorithm, UserKeys, UserToken, claimed_issuer, is_signed_token,
};
pub use verified::Verified;
