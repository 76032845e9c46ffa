//! What no field shows by itself: references between fields, and values that contradict each other.
//!
//! The checks run also on specs in which fields were found faulty. They leave out what would only
//! repeat such a fault in other words.

mod crew;
mod pool;
mod profile;

pub(crate) use crew::crew;
pub(crate) use pool::pool;
pub(crate) use profile::profile;
