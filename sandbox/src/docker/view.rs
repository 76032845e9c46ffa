//! What the daemon tells of a container, in our words.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status};

use crate::proc::{self, Stat};
use crate::{Exit, Id, Pid};

/// How much of the end of the runner's stderr an exit carries, in bytes.
const LOG_TAIL_BYTES: usize = 2 << 10;
/// What a shell, and so the daemon, adds to the number of the signal that ended a process.
const SIGNALLED: i64 = 128;
/// The largest signal (signal(7)).
const SIGNAL_MAX: i64 = 64;

/// How the daemon's time begins that stands for no time.
const NEVER: &str = "0001-";

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Made and never started.
    Made,
    /// It runs, or stands still and could go on.
    Runs,
    /// It ran.
    Ended,
}

fn state(container: &ContainerInspectResponse) -> Option<&ContainerState> {
    container.state.as_ref()
}

pub(super) fn phase(container: &ContainerInspectResponse) -> Phase {
    match state(container).and_then(|state| state.status) {
        Some(Status::CREATED) => Phase::Made,
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => Phase::Runs,
        _ => Phase::Ended,
    }
}

pub(super) fn is_paused(container: &ContainerInspectResponse) -> bool {
    state(container).and_then(|state| state.paused).unwrap_or_default()
}

/// Whether it ran before and was started again. The daemon keeps the time of the first end.
pub(super) fn has_lived_before(container: &ContainerInspectResponse) -> bool {
    let ended = state(container).and_then(|state| state.finished_at.as_deref()).unwrap_or_default();
    phase(container) == Phase::Runs && !ended.is_empty() && !ended.starts_with(NEVER)
}

/// Whether somebody has something executed in it, or had so until a short time ago.
pub(super) fn has_execs(container: &ContainerInspectResponse) -> bool {
    container.exec_ids.as_ref().is_some_and(|ids| !ids.is_empty())
}

/// The image that it was made of, by its content.
pub(super) fn image(container: &ContainerInspectResponse) -> &str {
    container.image.as_deref().unwrap_or_default()
}

/// The daemon's id of the container: 64 hexadecimal digits.
pub(super) fn container_id(container: &ContainerInspectResponse) -> &str {
    container.id.as_deref().unwrap_or_default()
}

pub(super) fn labels(container: &ContainerInspectResponse) -> HashMap<String, String> {
    container.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default()
}

/// The first process of a container that runs.
pub(super) fn pid(container: &ContainerInspectResponse) -> Option<Pid> {
    Stat::of(raw_pid(container)?).map(|stat| stat.id())
}

/// Whether the first process has ended, although the daemon says that it runs.
pub(super) fn has_ended(container: &ContainerInspectResponse) -> bool {
    raw_pid(container).is_some_and(|pid| Stat::of(pid).is_none_or(|stat| stat.is_dead()))
}

fn raw_pid(container: &ContainerInspectResponse) -> Option<u32> {
    let pid = u32::try_from(state(container)?.pid?).ok()?;
    (pid > 0).then_some(pid)
}

/// Its files, as this host sees them while it runs.
pub(super) fn root(container: &ContainerInspectResponse) -> Option<PathBuf> {
    let runner = pid(container)?;
    proc::lives(runner).then(|| Path::new("/proc").join(runner.pid.to_string()).join("root"))
}

/// The processes of this host that are in the container's control groups.
pub(super) fn processes(container: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| super::peer::is_in(*pid, container)).collect()
}

/// How it ended. The daemon tells of a signal as a shell does, by an exit code above 128.
pub(super) fn exit(id: &Id, container: &ContainerInspectResponse, log: &str) -> Exit {
    let state = state(container);
    let code = state.and_then(|state| state.exit_code).unwrap_or_default();
    let signal = code.checked_sub(SIGNALLED).filter(|signal| (1..=SIGNAL_MAX).contains(signal));
    let number = |value: i64| i32::try_from(value).unwrap_or(i32::MAX);
    Exit {
        id: id.clone(),
        code: signal.is_none().then(|| number(code)),
        signal: signal.map(number),
        oom: state.and_then(|state| state.oom_killed).unwrap_or_default(),
        log: tail(log.trim()).to_owned(),
    }
}

fn tail(log: &str) -> &str {
    let mut from = log.len().saturating_sub(LOG_TAIL_BYTES);
    while !log.is_char_boundary(from) {
        from += 1;
    }
    &log[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit_code: i64) -> Exit {
        let state = ContainerState { exit_code: Some(exit_code), ..ContainerState::default() };
        let container =
            ContainerInspectResponse { state: Some(state), ..ContainerInspectResponse::default() };
        exit(&Id::new("one").expect("legal"), &container, "  word\n")
    }

    #[test]
    fn a_code_above_128_is_a_signal() {
        assert_eq!((ended(0).code, ended(0).signal), (Some(0), None));
        assert_eq!((ended(128).code, ended(128).signal), (Some(128), None));
        assert_eq!((ended(137).code, ended(137).signal), (None, Some(9)));
        assert_eq!((ended(255).code, ended(255).signal), (Some(255), None));
        assert_eq!(ended(0).log, "word");
    }

    #[test]
    fn the_end_of_a_log_is_cut_between_characters() {
        let log = "ü".repeat(LOG_TAIL_BYTES);
        assert!(tail(&log).len() <= LOG_TAIL_BYTES && tail(&log).starts_with('ü'));
    }
}
