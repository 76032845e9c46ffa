//! Runners with real handlers, against a gateway played by the test.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test that unwraps fails with the line"
)]

mod ahead;
mod api;
mod check;
mod exec;
mod faults;
mod http;
mod life;
mod pull;
mod stdio;
mod stub;
