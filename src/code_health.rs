//! The `code-health` crew.
mod fingerprint;
mod functions;
mod language;
mod marks;
mod measure;
mod stencil;
mod tree;
