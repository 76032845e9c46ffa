//! Where checkpoints go, as it is configured: the sinks of [`events::audit`], and those that need a network.

mod bucket;
mod stream;

use std::sync::Arc;

use events::audit::{self, Sink, Tailer};

use crate::config::Config;
use crate::http::Dependency;
pub use bucket::{Bucket, BucketError};
pub use stream::Stream;

/// The sinks that `config` names; `bus` is where the platform is on one.
///
/// # Errors
/// When a setting cannot be used; the message says which.
pub(crate) fn configured(
    config: &Config,
    bus: Option<&nats::Nats>,
    origin: &str,
) -> Result<Vec<Arc<dyn Sink>>, BucketError> {
    let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(audit::AppendFile::new(config.checkpoint_file()))];
    if let Some(directory) = &config.checkpoint_dir {
        sinks.push(Arc::new(audit::Directory::new(directory)));
    }
    if let Some(program) = &config.checkpoint_program {
        sinks.push(Arc::new(audit::Program::new(program, Vec::new())));
    }
    if let Some(database) = &config.database_url {
        sinks.push(Arc::new(audit::Table::new(database)));
    }
    if let Some(url) = &config.checkpoint_url {
        sinks.push(Arc::new(Bucket::new(url, config.checkpoint_headers_file.clone())?));
    }
    if let Some(bus) = bus.filter(|_| config.checkpoint_nats) {
        sinks.push(Arc::new(Stream::new(bus.clone(), origin, config.nats.replicas)));
    }
    Ok(sinks)
}

/// The audit as a part that the platform can do without for a while.
pub struct Standing(pub Tailer);

impl Dependency for Standing {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn trouble(&self) -> Option<String> {
        let audit::Standing { refused, sinks, .. } = self.0.standing();
        let failing = sinks.into_iter().filter_map(|(sink, error)| error.map(|_| sink));
        let failing: Vec<String> = failing.collect();
        match (refused, &failing[..]) {
            (Some(refused), _) => Some(refused),
            (None, []) => None,
            // What went wrong may name what only an administrator is shown: `hypercode audit checkpoint` tells it.
            (None, failing) => Some(format!(
                "checkpoints wait for {}; `hypercode audit checkpoint` says why",
                failing.iter().map(|sink| kind(sink)).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let audit::Standing { size, refused, sinks } = self.0.standing();
        let failing = sinks.values().filter(|error| error.is_some()).count() as u64;
        vec![
            ("hypercode_checkpoint_position", "The position up to which the log is signed.", size),
            ("hypercode_checkpoint_sinks", "Places where checkpoints go.", sinks.len() as u64),
            ("hypercode_checkpoint_sinks_failing", "Places that do not take checkpoints.", failing),
            (
                "hypercode_checkpoint_refused",
                "1 if nothing is signed any more, since log and checkpoints contradict each other.",
                u64::from(refused.is_some()),
            ),
        ]
    }
}

/// What kind of place a sink is: the part of its name before the place itself.
fn kind(sink: &str) -> &str {
    sink.split_once(':').map_or(sink, |(kind, _)| kind)
}
