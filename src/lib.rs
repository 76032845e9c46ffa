//! The library behind the `hypercode` binary: command line, configuration, HTTP API and wiring. No domain logic.

mod access;
mod acts;
pub mod api;
pub mod bundle;
pub mod bus;
pub mod cli;
pub mod client;
pub mod code_health;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod erasure;
pub mod handler_kit;
pub mod http;
pub mod image;
mod issuers;
mod keyring;
mod known;
mod lifetime;
pub mod output;
pub mod platform;
pub mod room;
pub mod sandboxes;
mod secrets;
pub mod sinks;
pub mod storage;
pub mod tls;
