//! Starting a sandbox.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::keeper::STARTED;
use super::place::{Birth, Look, Place, Record};
use super::{Inner, Options, watch};
use crate::{Error, Id, Running, Spec};
use crate::{native, proc};

/// How often it is looked for a birth that must come any moment.
const BIRTH_PAUSE: Duration = Duration::from_millis(2);

/// Longest reason that is taken from a keeper, in bytes.
const REASON_BYTES_MAX: usize = 4 << 10;

/// Creates the sandbox, or finds it running.
pub(super) fn create(inner: &Arc<Inner>, spec: &Spec) -> Result<Running, Error> {
    let id = &spec.id;
    let used = || Error::Used { id: id.clone() };
    if inner.root.used.has(id) {
        return Err(used());
    }
    let place = inner.place(id);
    let (is_confined, birth) = match inner.look(id)? {
        Look::Absent | Look::Unborn(_) => (inner.options.confinement.is_some(), start(inner, spec, &place)?),
        Look::Kept(record, birth) => {
            let birth = birth.map_or_else(|| await_birth(inner, id), |birth| Ok(Some(birth)))?;
            (record.confinement.is_some(), birth)
        }
        Look::Ended(..) | Look::Lost(..) | Look::Foreign | Look::Damaged(_) => return Err(used()),
    };
    let birth = birth.ok_or_else(used)?;
    if !inner.watches.has(id) {
        watch::watch(inner, id, &birth);
    }
    let work = if is_confined { native::WORK.into() } else { place.work() };
    Ok(Running { id: id.clone(), runner: Some(birth.runner), work })
}

/// The birth of a sandbox whose keeper has just been started, if there comes one. It may have ended since.
pub(super) fn await_birth(inner: &Inner, id: &Id) -> Result<Option<Birth>, Error> {
    let deadline = Instant::now() + Duration::from_millis(inner.options.limits.start_ms);
    loop {
        match inner.look(id)? {
            Look::Kept(_, Some(birth)) | Look::Lost(_, birth) => return Ok(Some(birth)),
            Look::Ended(_, birth, _) => return Ok(birth),
            Look::Kept(_, None) if Instant::now() < deadline => thread::sleep(BIRTH_PAUSE),
            _ => return Ok(None),
        }
    }
}

fn start(inner: &Arc<Inner>, spec: &Spec, place: &Place) -> Result<Option<Birth>, Error> {
    let record = Record {
        instance: inner.options.instance.clone(),
        spec: spec.clone(),
        groups: inner.groups(&spec.id),
        confinement: inner.options.confinement.clone(),
    };
    place.prepare(&record)?;
    let Some(lock) = place.lock()? else {
        return await_birth(inner, &spec.id);
    };
    let mut keeper = spawn_keeper(inner, place, lock)?;
    if let Err(mut reason) = await_word(&mut keeper, Duration::from_millis(inner.options.limits.start_ms)) {
        for line in place.log_tail().lines() {
            reason = format!("{reason}: {line}");
        }
        // The keeper may hang or have failed half way: nothing of it may stay.
        inner.destroy(&spec.id)?;
        let _ = keeper.wait();
        return Err(Error::Start { id: spec.id.clone(), reason });
    }
    await_birth(inner, &spec.id)
}

fn spawn_keeper(inner: &Inner, place: &Place, lock: File) -> Result<Child, Error> {
    let Options { keeper, path, confinement, .. } = &inner.options;
    let (marker, dir) = place.marker();
    let mut command = Command::new(keeper);
    command.arg0(Options::KEEPER).arg(place.dir()).current_dir(place.dir());
    command.env_clear().env("LANG", "C.UTF-8").env(marker, dir);
    match confinement {
        Some(confinement) => command.envs(confinement.environment(path)),
        None => command.env("PATH", path).env("HOME", place.work()).env("TMPDIR", place.tmp()),
    };
    command.stdin(lock).stdout(Stdio::piped()).stderr(place.create_log()?);
    command.spawn().map_err(Error::io("execute", keeper))
}

/// Reads the line in which the keeper says whether the runner's program was executed.
fn await_word(keeper: &mut Child, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let mut pipe = keeper.stdout.take().ok_or("the keeper has no stdout")?;
    let mut said = Vec::new();
    while !said.ends_with(b"\n") && said.len() < REASON_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if !proc::readable(pipe.as_fd(), left) {
            return Err(format!("the keeper said nothing within {} ms", limit.as_millis()));
        }
        let mut bytes = [0; 512];
        match pipe.read(&mut bytes).map_err(|error| error.to_string())? {
            0 => break,
            count => said.extend_from_slice(&bytes[..count]),
        }
    }
    match String::from_utf8_lossy(&said).trim() {
        STARTED => Ok(()),
        "" => Err("the keeper ended without a word".to_owned()),
        reason => Err(reason.to_owned()),
    }
}
