//! What sandboxes of another kind left behind: a platform that is set up otherwise than before adopts none of them, and
//! their agents begin anew.

use std::collections::BTreeSet;
use std::path::Path;

use sandbox::{Instance, Kept, Kind, Options, Provider};

use super::connect;
use crate::config::Config;

/// In the data directory: the kinds of which there may be sandboxes, one a line.
const FILE: &str = "sandbox.kinds";

const DOCKER: &str = "docker";
/// Processes with namespaces of their own and plain ones are kept alike, and found by one another.
const KEPT: &str = "kept";

/// Removes all sandboxes of this instance that are of another kind than `now`. What cannot be removed yet is tried again
/// at the next start.
pub(super) async fn remove(config: &Config, instance: &Instance, now: Kind) {
    let file = config.data_dir.join(FILE);
    let now = if now == Kind::Docker { DOCKER } else { KEPT };
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let mut kinds = BTreeSet::from([now]);
    for other in [DOCKER, KEPT] {
        if other != now && text.lines().any(|line| line == other) {
            match remove_all(config, instance, other).await {
                Ok(count) => tracing::info!(kind = other, count, "sandboxes of another kind are removed"),
                Err(error) => {
                    tracing::error!(kind = other, %error, "sandboxes of another kind may be left; the next start tries again");
                    kinds.insert(other);
                }
            }
        }
    }
    let lines: String = kinds.iter().map(|kind| format!("{kind}\n")).collect();
    if lines != text {
        write(&file, &lines);
    }
}

fn write(file: &Path, text: &str) {
    if let Err(error) = std::fs::write(file, text) {
        tracing::warn!(file = %file.display(), %error, "it is not noted which kinds of sandboxes there are");
    }
}

async fn remove_all(config: &Config, instance: &Instance, kind: &str) -> Result<usize, super::ChoiceError> {
    let root = config.data_dir.join("sandboxes");
    let provider: Box<dyn Provider> = match kind {
        DOCKER => Box::new(connect(config, root, instance.clone()).await?),
        _ => Box::new(Kept::open(Options::new(root, instance.clone())).await?),
    };
    let found = provider.list().await?;
    for found in &found {
        provider.destroy(&found.id).await?;
    }
    Ok(found.len())
}
