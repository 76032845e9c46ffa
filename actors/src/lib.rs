//! Supervised actors over the event-sourced core

pub mod supervisor;
pub mod watchdog;
