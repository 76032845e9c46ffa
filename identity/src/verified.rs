//! What was checked, told apart from what was not by its type.

use std::ops::Deref;

/// Something of whose origin there is no doubt: only the stores of keys make it, each of its own kind of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn new(token: T) -> Self {
        Self(token)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
