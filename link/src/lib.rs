//! Wire types of the link and of the handler protocol
