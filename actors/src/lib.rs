//! Supervised actors over the event-sourced core
