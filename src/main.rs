//! The `hypercode` binary.
fn main() {}
