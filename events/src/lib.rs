//! The event-sourced core: pure domain, store and artifact seams, projections
