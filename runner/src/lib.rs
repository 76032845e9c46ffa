//! What runs as the first process of every sandbox
