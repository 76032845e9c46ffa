//! Tokens for runners that come over a network: before its assignment such a runner has nothing else to show.
//!
//! A token lies in a file that only its sandbox sees, is good for one link and for a minute at most, and is followed by
//! another for as long as the sandbox is nobody's and has no link. Whoever shows one a second time, or in another
//! sandbox's place, has it from somewhere else: then neither sandbox can be trusted any more.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use link::bootstrap::{DIRECTORY, TOKEN, TOKEN_MS};
use link::{CloseCode, Secret};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::core::Core;
use crate::denial;
use crate::sandbox::Sandbox;

/// Used tokens of one sandbox that are remembered: it has few links before it is assigned.
const USED_MAX: usize = 16;

/// A token, by its SHA-256: the token itself is the file's alone.
type Mark = [u8; 32];

fn mark(token: &str) -> Mark {
    Sha256::digest(token.as_bytes()).into()
}

/// The tokens of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    current: Option<(Mark, Instant)>,
    used: Vec<Mark>,
}

impl Tokens {
    /// Another one, in place of the one that is not used yet.
    fn next(&mut self) -> Secret {
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.current = Some((mark(&token), Instant::now()));
        Secret::new(token)
    }

    /// Whether this is the current one. It is used up by that.
    fn take(&mut self, token: &str) -> bool {
        let is_good = |(current, issued): &mut (Mark, Instant)| {
            *current == mark(token) && issued.elapsed() <= Duration::from_millis(TOKEN_MS)
        };
        let Some((used, _)) = self.current.take_if(is_good) else { return false };
        if self.used.len() == USED_MAX {
            self.used.remove(0);
        }
        self.used.push(used);
        true
    }

    /// Whether it is or was one of these.
    fn knows(&self, token: &str) -> bool {
        let token = mark(token);
        self.current.is_some_and(|(current, _)| current == token) || self.used.contains(&token)
    }
}

/// Makes the directory that a sandbox sees, beside its socket.
pub(crate) fn make_directory(beside: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o711).recursive(true).create(beside.join(DIRECTORY))
}

/// Keeps a token in the sandbox's file for as long as its runner needs one.
pub(crate) async fn keep(core: Arc<Core>, sandbox: Arc<Sandbox>) {
    loop {
        let token = {
            let mut state = sandbox.state();
            let is_needed = state.link.is_none() && !state.token_held;
            is_needed.then(|| state.bootstrap.next())
        };
        let written = match &token {
            Some(token) => write(&sandbox.directory, token, core.options.peer_uid),
            None => remove(&sandbox.directory),
        };
        if let Err(error) = written {
            tracing::warn!(sandbox = %sandbox.id, %error, "the token of a sandbox cannot be kept");
        }
        let lapses = async {
            match token {
                Some(_) => tokio::time::sleep(Duration::from_millis(TOKEN_MS)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sandbox.closed.cancelled() => return,
            () = core.stopped.cancelled() => return,
            () = sandbox.relinked.notified() => {}
            () = lapses => {}
        }
    }
}

/// Whether the token lets this sandbox's runner in; it lets nobody in again. One that was used before, or is another's,
/// ends all whose it is.
pub(crate) async fn admits(core: &Arc<Core>, sandbox: &Arc<Sandbox>, token: &str) -> bool {
    {
        let mut state = sandbox.state();
        if !state.token_held && state.bootstrap.take(token) {
            return true;
        }
    }
    let others: Vec<Arc<Sandbox>> = {
        let sandboxes = core.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        sandboxes.values().cloned().collect()
    };
    let owner = others.into_iter().find(|other| other.state().bootstrap.knows(token));
    let Some(owner) = owner else { return false };
    for one in [sandbox, &owner] {
        let link = {
            let mut state = one.state();
            state.is_spoilt = true;
            state.link.clone()
        };
        if let Some(link) = link {
            link.end(Some(CloseCode::IncarnationEnded), "its token was shown by somebody else");
        }
    }
    tracing::error!(sandbox = %sandbox.id, owner = %owner.id, "a token was shown again, or by somebody else");
    denial::reused_token(core, sandbox, &owner).await;
    false
}

/// Puts the token where its sandbox sees it, and no other user of this host can read it.
fn write(beside: &Path, token: &Secret, peer: Option<u32>) -> io::Result<()> {
    let file = file(beside);
    let fresh = file.with_extension("new");
    remove_file(&fresh)?;
    let mut open = std::fs::OpenOptions::new();
    let mut opened = open.write(true).create_new(true).mode(0o400).open(&fresh)?;
    io::Write::write_all(&mut opened, token.expose().as_bytes())?;
    if let Some(peer) = peer.filter(|peer| *peer != nix::unistd::geteuid().as_raw()) {
        match std::os::unix::fs::fchown(&opened, Some(peer), None) {
            // Only root gives files away. Who comes as far as this is decided by the directories above.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                opened.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
            }
            given => given?,
        }
    }
    std::fs::rename(&fresh, &file)
}

fn remove(beside: &Path) -> io::Result<()> {
    remove_file(&file(beside))
}

fn remove_file(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file(beside: &Path) -> PathBuf {
    beside.join(DIRECTORY).join(TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let mut tokens = Tokens::default();
        let first = tokens.next();
        assert!(!tokens.take("another"));
        assert!(tokens.take(first.expose()) && !tokens.take(first.expose()));
        assert!(tokens.knows(first.expose()) && !tokens.knows("another"));
        let late = tokens.next();
        tokio::time::advance(Duration::from_millis(TOKEN_MS + 1)).await;
        assert!(!tokens.take(late.expose()), "it lapsed");
        let replaced = tokens.next();
        let current = tokens.next();
        assert!(!tokens.take(replaced.expose()) && tokens.take(current.expose()));
    }
}
