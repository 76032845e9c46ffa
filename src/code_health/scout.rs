//! The scout: splits a tree, has the parts analysed at the same time and the report written.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, thread};

use link::handler::{Executed, State};
use link::{
    Address, ArtifactUrl, Body, Child, Content, Error, ErrorType, Location, LogLevel, Part as ContentPart,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::report::Missing;
use super::tree::{Part, Skipped, walk};
use super::work::{self, EditWork, FINDINGS_NAME, PartWork, ReportWork};
use super::{REPORT_NAME, packed};
use crate::handler_kit::{Handler, Task, storage};

/// How often a delegation that was refused for now is tried, and the pause before it is tried again, if the refusal
/// names none.
const DELEGATIONS_MAX: u32 = 6;
const REFUSED_PAUSE_MS: u64 = 200;
/// No refusal is waited for longer.
const REFUSED_PAUSE_MS_MAX: u64 = 10_000;

/// The member `scout`.
pub struct Scout;

/// What the scout has decided; kept, so that a later attempt asks for the same parts even if the tree has changed.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    name: String,
    root: String,
    parts: Vec<Part>,
    skipped: Skipped,
}

impl Handler for Scout {
    fn execute(&self, task: &Task) -> Result<Executed, Error> {
        let wish: ReportWork = match work::read(&task.params().input) {
            Ok(wish) => wish,
            Err(error) => return Ok(Executed::ended(State::Rejected, error.message)),
        };
        let unpacked = packed::unpack(task)?;
        let plan = match kept_plan(task) {
            Some(plan) => plan,
            None => match Plan::make(&wish, unpacked.as_deref()) {
                Ok(plan) => plan,
                Err(error) => {
                    let message = format!("cannot read the directory `{}`: {error}", wish.path);
                    return Ok(Executed::ended(State::Rejected, message));
                }
            },
        };
        plan.keep(task)?;
        let (found, missing) = analysed(task, &plan, unpacked.as_deref())?;
        if found.is_empty()
            && let Some(first) = missing.first()
        {
            let message = format!("none of the {} parts could be analysed: {}", missing.len(), first.error);
            return Err(Error::new(ErrorType::HandlerFailed, message));
        }
        let report = edited(task, &plan, &found, missing)?;
        let path = task.output_file(REPORT_NAME)?;
        fs::write(&path, &report).map_err(|error| storage("write", &path, &error))?;
        Ok(Executed::output(Content::text(report)))
    }
}

fn kept_plan(task: &Task) -> Option<Plan> {
    Plan::deserialize(task.params().checkpoint.as_ref()?).ok()
}

impl Plan {
    fn make(wish: &ReportWork, unpacked: Option<&Path>) -> std::io::Result<Self> {
        let (root, tree) = match unpacked {
            Some(unpacked) => (PathBuf::from(&wish.path), walk(unpacked, None)?),
            None => {
                let root = fs::canonicalize(&wish.path)?;
                let tree = walk(&root, None)?;
                (root, tree)
            }
        };
        let name = root.file_name().map_or_else(|| "/".into(), |name| name.to_string_lossy());
        Ok(Self {
            name: name.into_owned(),
            root: root.to_string_lossy().into_owned(),
            parts: tree.split(wish.split_into),
            skipped: wish.skipped.clone().unwrap_or(tree.skipped),
        })
    }

    /// A plan that cannot be kept costs a later attempt the work of this one, not the task.
    fn keep(&self, task: &Task) -> Result<(), Error> {
        let files: u64 = self.parts.iter().map(|part| part.files).sum();
        let total = self.parts.len();
        task.progress(format!("split {files} files into {total} parts"), 0, count(total));
        match task.checkpoint(json!(self)) {
            Err(error) if error.kind != Some(ErrorType::Canceled) => {
                task.log(LogLevel::Warning, format!("failed to keep the plan: {error}"));
                Ok(())
            }
            kept => kept.map(|_| ()),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The findings of a part: its name and where they are.
type Found = (String, ArtifactUrl);

/// Has all parts analysed at the same time; a part that fails is missing from the report, no more.
fn analysed(task: &Task, plan: &Plan, unpacked: Option<&Path>) -> Result<(Vec<Found>, Vec<Missing>), Error> {
    let total = count(plan.parts.len());
    let done = AtomicU32::new(0);
    let outcomes: Vec<Result<ArtifactUrl, Error>> = thread::scope(|scope| {
        let analyse = |part: &Part| {
            let outcome = analyse(task, &plan.root, unpacked, part);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            task.progress(format!("analysed {done} of {total} parts"), done, total);
            outcome
        };
        let start = |part| scope.spawn(move || analyse(part));
        let threads: Vec<_> = plan.parts.iter().map(start).collect();
        let panicked = |_| Err(Error::new(ErrorType::Internal, "the scout's thread panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for (part, outcome) in plan.parts.iter().zip(outcomes) {
        match outcome {
            Ok(url) => found.push((part.name.clone(), url)),
            Err(error) if error.kind == Some(ErrorType::Canceled) => return Err(error),
            Err(error) => {
                task.log(LogLevel::Warning, format!("{} is missing: {error}", part.name));
                missing.push(Missing {
                    part: part.name.clone(),
                    first: part.first.clone(),
                    last: part.last.clone(),
                    files: part.files,
                    error: error.message,
                });
            }
        }
    }
    Ok((found, missing))
}

fn analyse(task: &Task, root: &str, unpacked: Option<&Path>, part: &Part) -> Result<ArtifactUrl, Error> {
    let work = PartWork { root: root.to_owned(), part: part.clone() };
    let mut input = Content::data(json!(work));
    if let Some(unpacked) = unpacked {
        let files = walk(unpacked, Some(part)).map_err(|error| storage("read", unpacked, &error))?.entries;
        input = packed::beside(input, packed::put(task, &part.name, &files)?);
    }
    let child = delegate(task, "analyst", &part.name, &input)?;
    artifact(&child, FINDINGS_NAME).ok_or_else(|| {
        Error::new(ErrorType::HandlerFailed, format_args!("the analyst left no `{FINDINGS_NAME}`"))
    })
}

/// Has the editor write the report.
fn edited(task: &Task, plan: &Plan, found: &[Found], missing: Vec<Missing>) -> Result<String, Error> {
    let work = EditWork { name: plan.name.clone(), skipped: plan.skipped.clone(), missing };
    let mut input = Content::data(json!(work));
    for (name, url) in found {
        let mut part = ContentPart::new(Body::Url(url.clone()));
        part.filename = Some(format!("{name}.json"));
        part.media_type = Some("application/json".to_owned());
        input.parts.push(part);
    }
    let total = count(plan.parts.len());
    task.progress("the editor writes the report", total, total);
    let child = delegate(task, "editor", "edit", &input)?;
    let text = child.output.as_ref().map(Content::joined_text).unwrap_or_default();
    if !text.is_empty() {
        return Ok(text);
    }
    // A long output may come as an artifact alone.
    let url = artifact(&child, REPORT_NAME)
        .ok_or_else(|| Error::new(ErrorType::HandlerFailed, "the editor left no report"))?;
    let got = task.get_artifact(&url, &Path::new(&task.params().dir).join(REPORT_NAME))?;
    fs::read_to_string(&got.path).map_err(|error| storage("read", Path::new(&got.path), &error))
}

/// Where a child's artifact of this name is.
fn artifact(child: &Child, name: &str) -> Option<ArtifactUrl> {
    let named = child.artifacts.iter().find(|artifact| artifact.name.rsplit('/').next() == Some(name))?;
    match &named.location {
        Location::Url(url) => Some(url.clone()),
        Location::Path(_) => None,
    }
}

/// Delegates and waits until the child has completed. A refusal that may pass is waited out.
fn delegate(task: &Task, member: &str, key: &str, input: &Content) -> Result<Child, Error> {
    let to = Address::Member(member.to_owned());
    let mut tried = 1;
    let child = loop {
        match task.delegate(&to, key, input.clone()) {
            Err(error) if tried < DELEGATIONS_MAX && matches!(error.code, 429 | 503) => {
                let pause = error.retry_after_ms().unwrap_or(REFUSED_PAUSE_MS << tried);
                task.pause(Duration::from_millis(pause.min(REFUSED_PAUSE_MS_MAX)))?;
                tried += 1;
            }
            outcome => break outcome?,
        }
    };
    match child.state {
        State::Completed => Ok(child),
        state => {
            let state = json!(state);
            let state = state.as_str().unwrap_or_default();
            let reason = child.error.as_ref().map_or("no reason given", |error| error.message.as_str());
            Err(Error::new(
                ErrorType::HandlerFailed,
                format_args!("the {member}'s task ended {state}: {reason}"),
            ))
        }
    }
}
