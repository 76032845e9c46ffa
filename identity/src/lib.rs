//! Who asks, by which token, and what they may do: no IO, so that every door decides alike.
//!
//! ```text
//!   header --ApiToken--> token, verified --grants of its principal--> roles --permits--> yes or no
//! ```
//!
//! Nothing is allowed that no role permits: there are no rules that deny, and the roles of a principal add up.

mod permission;
mod role;
mod token;

pub use permission::PERMISSIONS;
pub use role::{Role, UnknownRole, is_permitted, missing_of};
pub use token::{ApiToken, HashError, MalformedToken, TokenId};
