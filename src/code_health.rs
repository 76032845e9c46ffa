//! The `code-health` crew.
mod duplicates;
mod fingerprint;
mod functions;
mod language;
mod marks;
mod measure;
mod report;
mod stencil;
mod tree;
