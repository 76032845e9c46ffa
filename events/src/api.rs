//! The platform's command API.
