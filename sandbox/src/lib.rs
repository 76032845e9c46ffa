//! The sandbox seam and its implementations
