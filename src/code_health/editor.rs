//! The editor: joins the findings of all parts and writes the report.

use std::fs;
use std::path::Path;

use link::handler::{Deliver, Executed, HandlerInfo, Messages, State};
use link::{Content, Error, ErrorType};

use super::REPORT_NAME;
use super::report::{self, Survey};
use super::work::{self, EditWork, Findings};
use crate::handler_kit::{Handler, Task, storage};

/// The member `editor`.
pub struct Editor;

impl Handler for Editor {
    fn info(&self) -> HandlerInfo {
        HandlerInfo { messages: Messages::Always, ping: true, ..HandlerInfo::default() }
    }

    fn execute(&self, task: &Task) -> Result<Executed, Error> {
        let work: EditWork = match work::read(&task.params().input) {
            Ok(work) => work,
            Err(error) => return Ok(Executed::ended(State::Rejected, error.message)),
        };
        let names: Vec<&str> =
            task.params().input.parts.iter().filter_map(|part| part.filename.as_deref()).collect();
        let mut files = Vec::new();
        for name in &names {
            task.check()?;
            files.extend(findings(&task.input_file(name))?.files);
        }
        task.progress(format!("joins {} files of {} parts", files.len(), names.len()), 0, 1);
        let report =
            report::write(Survey { name: work.name, files, skipped: work.skipped, missing: work.missing });
        let path = task.output_file(REPORT_NAME)?;
        fs::write(&path, &report).map_err(|error| storage("write", &path, &error))?;
        Ok(Executed::output(Content::text(report)))
    }

    /// An analyst's few words: they go to the log. The report rests on the findings alone, for messages may come late,
    /// twice and in any order.
    fn deliver(&self, message: &Deliver) -> Result<(), Error> {
        crate::output::remark(format_args!("{} says: {}", message.from.member, message.text));
        Ok(())
    }
}

fn findings(path: &Path) -> Result<Findings, Error> {
    let text = fs::read(path).map_err(|error| storage("read", path, &error))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(ErrorType::InvalidParams, format_args!("`{}` has no findings: {error}", path.display()))
    })
}
