//! The `code-health` crew.
mod functions;
mod language;
mod stencil;
