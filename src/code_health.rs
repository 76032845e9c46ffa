//! The `code-health` crew: reads a source tree and writes a report on it, with no model and no network.
//!
//! Three members, ordinary handlers over the public protocol, started as `hypercode handler code-health ROLE`:
//! `scout` walks the tree, splits it into parts and has each analysed; `analyst` measures the files of a part; `editor`
//! joins the parts and writes the report. Bulk goes by artifacts: an analyst leaves its findings as a file, the scout
//! hands the reference on, the editor finds the files beside its task. So no line grows with the tree.
//!
//! The same tree gives the same report, byte for byte, whatever the order of the parts and whoever had to start again.

mod analyst;
mod duplicates;
mod editor;
mod fingerprint;
mod functions;
mod language;
mod marks;
mod measure;
mod packed;
mod report;
mod scout;
mod stencil;
mod tree;
mod work;

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

pub use analyst::{Analyst, PACE_VARIABLE};
pub use editor::Editor;
pub use packed::PackedTree;
pub use scout::Scout;

use crate::handler_kit::serve_stdio;

/// The crew's manifest.
pub const CREW: &str = include_str!("code_health/crew.yaml");
/// The profiles of its members, as one stream of three documents. Their command is `hypercode`, which the platform
/// takes for the program that is running.
pub const PROFILES: &str = include_str!("code_health/profiles.yaml");
/// The roles that [`run`] knows.
pub const ROLES: [&str; 3] = ["scout", "analyst", "editor"];
/// The name of the report among the artifacts of the crew's task.
pub const REPORT_NAME: &str = "report.md";

/// Serves a role on standard input and output until the runner closes the input. An unknown role is a usage error.
pub fn run(role: &str) -> ExitCode {
    match role {
        "scout" => serve_stdio(Scout),
        "analyst" => serve_stdio(Analyst::from_environment()),
        "editor" => serve_stdio(Editor),
        _ => {
            crate::output::remark(format_args!(
                "no role `{role}` in the crew code-health: one of {}",
                ROLES.join(", ")
            ));
            ExitCode::from(2)
        }
    }
}

/// The input of the crew's task: a report on the tree below this directory. Its members must be able to read it under
/// the same path; where they cannot, it travels as a [`PackedTree`].
pub fn report_task_input(path: &Path) -> Value {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    serde_json::json!({ "path": absolute.to_string_lossy() })
}

#[cfg(test)]
mod tests;
