//! Where checkpoints go, as it is configured: the sinks of [`events::audit`], and those that need a network.

mod bucket;
mod http;
mod stream;
mod witness;

use std::sync::Arc;

use events::audit::{self, Ledger, Sink, Tailer};

use crate::config::Config;
use crate::http::Dependency;
pub use bucket::Bucket;
pub use http::SettingError;
pub use stream::Stream;
pub use witness::Witness;
pub(crate) use witness::name_of as witness_name;

/// The sinks that `config` names; `bus` is where the platform is on one, and `ledger` proves to a witness that the log
/// goes on as it was.
///
/// # Errors
/// When a setting cannot be used; the message says which.
pub(crate) fn configured(
    config: &Config,
    bus: Option<&nats::Nats>,
    origin: &str,
    ledger: &Ledger,
) -> Result<Vec<Arc<dyn Sink>>, SettingError> {
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
    let (witnesses, keys) = (&config.checkpoint_witness, &config.checkpoint_witness_key);
    if !witnesses.is_empty() && witnesses.len() != keys.len() {
        let reason = format!(
            "found {} in `checkpoint_witness_key`, expected one for each of {}: without it no cosignature can be checked",
            keys.len(),
            witnesses.len()
        );
        return Err(SettingError { setting: "checkpoint_witness", reason });
    }
    for (url, key) in witnesses.iter().zip(keys) {
        let witness = Witness::new(url, key.clone(), ledger.clone(), config.cosigned_file(key))?;
        sinks.push(Arc::new(witness));
    }
    if let Some(bus) = bus.filter(|_| config.checkpoint_nats) {
        sinks.push(Arc::new(Stream::new(bus.clone(), origin, config.nats.replicas)));
    }
    Ok(sinks)
}

/// Whether a sink can be reached under `url`, as `setting` names it.
///
/// # Errors
/// When the text is no such URL.
pub(crate) fn check_url(setting: &'static str, url: &str) -> Result<(), SettingError> {
    http::Http::new(setting, url).map(drop)
}

/// The audit as a part that the platform can do without for a while.
pub struct Standing(pub Tailer);

impl Dependency for Standing {
    fn name(&self) -> &'static str {
        "audit"
    }

    fn trouble(&self) -> Option<String> {
        let audit::Standing { refused, delayed, sinks, .. } = self.0.standing();
        let failing = sinks.into_iter().filter_map(|(sink, error)| error.map(|_| sink));
        let failing: Vec<String> = failing.collect();
        match (refused, &failing[..]) {
            (Some(refused), _) => Some(refused),
            // What went wrong may name what only an administrator is shown: `hypercode audit checkpoint` tells it.
            (None, _) if delayed.is_some() => {
                Some("nothing is signed at the moment; `hypercode audit checkpoint` says why".to_owned())
            }
            (None, []) => None,
            (None, failing) => Some(format!(
                "checkpoints wait for {}; `hypercode audit checkpoint` says why",
                failing.iter().map(|sink| kind(sink)).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let audit::Standing { size, refused, delayed, sinks } = self.0.standing();
        let failing = sinks.values().filter(|error| error.is_some()).count() as u64;
        vec![
            ("hypercode_checkpoint_position", "The position up to which the log is signed.", size),
            ("hypercode_checkpoint_sinks", "Places where checkpoints go.", sinks.len() as u64),
            ("hypercode_checkpoint_sinks_failing", "Places that do not take checkpoints.", failing),
            (
                "hypercode_checkpoint_delayed",
                "1 while nothing is signed for want of room or of the log.",
                u64::from(delayed.is_some()),
            ),
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
