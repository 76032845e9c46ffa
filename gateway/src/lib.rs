//! The platform's end of all links
