//! Parsing and checking of manifests, all faults at once
