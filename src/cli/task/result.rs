//! What came out of a task: printed, or written to a directory.

use std::path::{Component, Path};

use events::api::{Problem, ProblemKind};
use serde_json::Value;

use super::super::session::Session;
use super::super::{Outcome, artifact};
use super::verdict;
use crate::output::{Format, harmless, print};

/// Prints a task's output, or writes it and the artifacts to `out`; the exit code says whether it was completed.
pub(crate) async fn result(session: &Session, task: &Value, out: Option<&Path>) -> Outcome {
    if let Some(out) = out {
        write(session, task, out).await?;
    }
    match session.output.format {
        Format::Table if out.is_none() => print(&harmless(&readable(&task["output"])))?,
        Format::Table => {}
        Format::Json | Format::Yaml => session.output.details(task)?,
    }
    verdict(session, task)
}

/// The text parts, and the data parts as JSON.
fn readable(output: &Value) -> String {
    let parts = output["parts"].as_array().into_iter().flatten();
    let lines: Vec<String> = parts
        .map(|part| match (&part["text"], &part["data"], &part["url"]) {
            (Value::String(text), _, _) => text.clone(),
            (_, _, Value::String(url)) => {
                format!("{} {url}", part["filename"].as_str().unwrap_or("artifact"))
            }
            (_, data, _) => format!("{data:#}"),
        })
        .collect();
    lines.join("\n")
}

async fn write(session: &Session, task: &Value, out: &Path) -> Result<(), Problem> {
    let failed = |path: &Path, error: &std::io::Error| {
        Problem::new(ProblemKind::Failed, format!("write `{}`: {error}", path.display()))
    };
    let has_artifacts = task["artifacts"].as_array().is_some_and(|artifacts| !artifacts.is_empty());
    if task["output"].is_null() && !has_artifacts {
        return Ok(());
    }
    std::fs::create_dir_all(out).map_err(|error| failed(out, &error))?;
    if !task["output"].is_null() {
        let path = out.join("output.txt");
        std::fs::write(&path, readable(&task["output"]) + "\n").map_err(|error| failed(&path, &error))?;
        crate::output::remark(path.display());
    }
    for artifact in task["artifacts"].as_array().into_iter().flatten() {
        let (name, url) =
            (artifact["name"].as_str().unwrap_or_default(), artifact["url"].as_str().unwrap_or_default());
        let path = out.join(safe(name)?);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
        }
        artifact::get(&session.client, url, Some(&path)).await?;
        crate::output::remark(path.display());
    }
    Ok(())
}

/// The name as a path that stays below the directory. Agents choose the names.
fn safe(name: &str) -> Result<&Path, Problem> {
    let path = Path::new(name);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    match stays && !name.is_empty() && !name.contains('\0') {
        true => Ok(path),
        false => {
            let detail = format!(
                "an artifact is named `{}`, which would leave the directory; fetch it by its digest with `hypercode artifact get`",
                harmless(name)
            );
            Err(Problem::new(ProblemKind::Denied, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_artifact_never_leaves_its_directory() {
        assert!(safe("report.md").is_ok() && safe("figures/a.svg").is_ok());
        for name in ["", "..", "../x", "/etc/passwd", "a/../../b", "./a", "a\0b"] {
            assert!(safe(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn output_is_text_where_it_is_text_and_json_where_it_is_data() {
        let output = json!({"parts": [{"text": "four"}, {"data": {"n": 4}}, {"url": "artifact:sha256:ab", "filename": "r.md"}]});
        assert_eq!(readable(&output), "four\n{\n  \"n\": 4\n}\nr.md artifact:sha256:ab");
        assert_eq!(readable(&Value::Null), "");
    }
}
