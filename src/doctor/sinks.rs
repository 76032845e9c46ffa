//! How the places fare where checkpoints go.

use std::collections::BTreeMap;

use events::audit::Ledger;

use super::{Finding, Verdict};
use crate::config::Config;
use crate::http::StandingModel;

pub(crate) const WHAT: &str = "checkpoint sinks";

/// What a platform that runs says of them.
pub(crate) fn live(standing: &StandingModel) -> Finding {
    if let Some(refused) = &standing.refused {
        let found = format!("nothing is signed any more: {refused}");
        return Finding::new(WHAT, Verdict::Error, found, "run `hypercode audit verify`");
    }
    if let Some(delayed) = &standing.delayed {
        let found = format!("nothing is signed at the moment: {delayed}");
        let mend = "mend what the message names; the platform tries again every second";
        return Finding::new(WHAT, Verdict::Warning, found, mend);
    }
    let failing =
        standing.sinks.iter().filter_map(|(sink, error)| Some(format!("{sink}: {}", error.as_ref()?)));
    let failing: Vec<String> = failing.collect();
    if failing.is_empty() {
        let sinks: Vec<&str> = standing.sinks.keys().map(String::as_str).collect();
        let size = standing.newest.as_ref().map_or(0, |newest| newest.size);
        let found = format!("all take checkpoints, the newest is at position {size}: {}", sinks.join(", "));
        return Finding::new(WHAT, Verdict::Ok, found, "");
    }
    let mend = "mend what the messages name; the platform tries again every second";
    Finding::new(WHAT, Verdict::Warning, failing.join("; "), mend)
}

/// What the ledger of the data directory says of them while no platform runs; `None` where there is no ledger.
pub(crate) async fn at_rest(config: &Config) -> Option<Finding> {
    let looked = async {
        let Some(ledger) = Ledger::read(&config.data_dir).await? else { return Ok(None) };
        let (newest, sinks) = (ledger.newest().await?, ledger.sinks().await?);
        ledger.close().await;
        Ok::<_, events::audit::LedgerError>(newest.map(|newest| (newest.size, sinks)))
    };
    match looked.await {
        Ok(found) => found.map(|(newest, sinks)| behind(newest, &sinks)),
        Err(error) => {
            Some(Finding::new(WHAT, Verdict::Error, error.to_string(), "mend what the message names"))
        }
    }
}

fn behind(newest: u64, sinks: &BTreeMap<String, u64>) -> Finding {
    let told = |(sink, size): (&String, &u64)| format!("{sink} has them up to position {size}");
    let behind: Vec<String> = sinks.iter().filter(|(_, size)| **size < newest).map(told).collect();
    match behind.is_empty() {
        true => {
            let found = format!("all that ever took a checkpoint have the newest, of position {newest}");
            Finding::new(WHAT, Verdict::Ok, found, "")
        }
        false => {
            let found = format!("of {newest} positions that are signed, {}", behind.join("; "));
            let mend = "start the platform, which gives them the rest, unless they are configured no more";
            Finding::new(WHAT, Verdict::Warning, found, mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_fails_is_named_with_its_reason() {
        let standing = |error: Option<&str>, refused: Option<&str>| StandingModel {
            origin: "o".into(),
            newest: None,
            keys: Vec::new(),
            refused: refused.map(str::to_owned),
            delayed: None,
            sinks: [("file:/a".to_owned(), None), ("url:b".to_owned(), error.map(str::to_owned))].into(),
        };
        let well = live(&standing(None, None));
        assert!(well.verdict == Verdict::Ok && well.found.contains("url:b"), "{well:?}");
        let ill = live(&standing(Some("no room"), None));
        assert!(ill.verdict == Verdict::Warning && ill.found == "url:b: no room", "{ill:?}");
        assert_eq!(live(&standing(None, Some("a fork"))).verdict, Verdict::Error);
    }

    #[test]
    fn a_sink_that_is_behind_is_named() {
        let sinks: BTreeMap<String, u64> = [("file:/a".to_owned(), 9), ("url:b".to_owned(), 4)].into();
        assert_eq!(behind(4, &sinks).verdict, Verdict::Ok);
        let found = behind(9, &sinks);
        assert!(found.verdict == Verdict::Warning && found.found.contains("url:b has them up to position 4"));
        assert!(!found.found.contains("file"), "{found:?}");
    }
}
