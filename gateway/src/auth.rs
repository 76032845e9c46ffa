//! Who a link is, beside the socket that it came in on: the token of its agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{AgentToken, Fault, Verb};
use link::{Secret, ToRunner, TokenFrame};
use tokio::time::Instant;

use crate::core::Core;
use crate::error::Error;
use crate::host::Peer;
use crate::outlet::Keep;
use crate::sandbox::{Link, Sandbox};
use crate::session::text;

/// Of its life, how much of a token passes before another takes its place, in percent.
const RENEW_PERCENT: u32 = 60;
/// How soon a token that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A new token of the sandbox's agent, and how long it lives.
pub(crate) fn issue(core: &Core, sandbox: &Sandbox, peer: &Peer) -> Result<(Secret, Duration), Error> {
    let minted = core.keys.mint(&peer.bearer(), now_s());
    let minted =
        minted.map_err(|error| Error::NoToken { sandbox: sandbox.id.clone(), reason: error.to_string() })?;
    let life = Duration::from_secs(minted.lifetime_s);
    sandbox.renew_at(Instant::now() + life * RENEW_PERCENT / 100);
    Ok((Secret::new(minted.text.as_str()), life))
}

/// Whether the runner shows a token of the sandbox's agent that lets it do this.
pub(crate) fn check(core: &Core, sandbox: &Sandbox, shown: &str, verb: Verb) -> Result<(), Fault> {
    let peer = sandbox.peer().ok_or(Fault::Foreign("sub"))?;
    // While the platform was away, nobody could give the runner another one.
    let may_be_late = verb == Verb::OpenLink && sandbox.state().renew_at.is_none();
    let now_s = now_s();
    let token = match may_be_late {
        true => core.keys.verify_late(shown, now_s)?,
        // The clock went ahead of the renewal, which goes by another one: whoever asks again has another token by then.
        false => core.keys.verify(shown, now_s).inspect_err(|fault| {
            if *fault == Fault::Expired && sandbox.state().renew_at.is_some() && verb != Verb::OpenLink {
                sandbox.renew_at(Instant::now());
            }
        })?,
    };
    token.is_of(&peer.bearer(), verb)?;
    if verb == Verb::OpenLink {
        sandbox.renew_at(due(&token, now_s));
    }
    Ok(())
}

/// When a token that was made some time ago is to be replaced.
fn due(token: &AgentToken, now_s: u64) -> Instant {
    let life = Duration::from_secs(token.exp - token.iat);
    let age = Duration::from_secs(now_s.saturating_sub(token.iat));
    Instant::now() + (life * RENEW_PERCENT / 100).saturating_sub(age)
}

/// Gives the runner another token whenever that is due, for as long as the link lives.
pub(crate) async fn renew(core: &Core, sandbox: &Sandbox, link: &Link) {
    loop {
        let woken = sandbox.renewal.notified();
        let due = sandbox.state().renew_at;
        let time = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = link.cut.cancelled() => return,
            () = woken => {}
            () = time => give(core, sandbox),
        }
    }
}

fn give(core: &Core, sandbox: &Sandbox) {
    let Some(peer) = sandbox.peer() else { return };
    match issue(core, sandbox, peer) {
        Ok((token, life)) => {
            let expires_in_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
            let frame = ToRunner::Token(TokenFrame { token, expires_in_ms });
            sandbox.push(text(&frame), Keep::No);
        }
        Err(error) => {
            tracing::error!(%error, "an agent keeps the token that it has");
            sandbox.renew_at(Instant::now() + RETRY);
        }
    }
}
