//! Whether the views go on.

use events::projection::{Frozen, VIEWS_FILE};
use serde_json::Value;

use super::{Finding, Verdict};
use crate::config::Config;

pub(crate) const WHAT: &str = "views";

/// What a platform that runs says of its projections.
pub(crate) fn live(page: &Value) -> Finding {
    let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
    let stopped = items.iter().filter_map(|item| Some((item["name"].as_str()?, item["error"].as_str()?)));
    finding(stopped)
}

/// What the views themselves say while no platform runs; `None` where there are none that can be read.
pub(crate) async fn at_rest(config: &Config) -> Option<Finding> {
    let file = config.data_dir.join(VIEWS_FILE);
    let views = match &config.database_url {
        Some(database) => Frozen::open_common(database).await,
        None if !file.is_file() => return None,
        None => Frozen::open(&file).await,
    };
    let stopped = views.ok()?.stopped().await.ok()?;
    Some(finding(stopped.iter().filter_map(|status| Some((&*status.name, status.error.as_deref()?)))))
}

fn finding<'a>(stopped: impl Iterator<Item = (&'a str, &'a str)>) -> Finding {
    let told: Vec<String> =
        stopped.map(|(name, error)| format!("projection `{name}` has stopped: {error}")).collect();
    match told.is_empty() {
        true => Finding::new(WHAT, Verdict::Ok, "no projection has stopped", ""),
        false => {
            let mend = "what they show is as of that event, and the entity that it is of takes no commands; \
                        use a program that can read it, and `hypercode projection rebuild`";
            Finding::new(WHAT, Verdict::Warning, told.join("; "), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_stopped_is_named_with_its_reason() {
        let page = |error: Value| json!({"items": [{"name": "crews", "error": error}, {"name": "tasks"}]});
        assert_eq!(live(&page(Value::Null)).verdict, Verdict::Ok);
        let stopped = live(&page(json!("event at position 7: no")));
        assert_eq!(stopped.verdict, Verdict::Warning);
        assert_eq!(stopped.found, "projection `crews` has stopped: event at position 7: no");
    }
}
