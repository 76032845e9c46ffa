//! Supervised actors over the event-sourced core

pub mod admission;
pub mod supervisor;
pub mod watchdog;
