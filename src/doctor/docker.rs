//! Whether agents can be run in Docker containers here, and whether these hold them.

use std::os::unix::net::UnixStream;

use super::{Finding, Verdict, in_words};
use crate::config::{Config, SandboxKind};
use crate::sandboxes;

/// The first version of Docker without known ways out that need no fault of the kernel.
const VERSION_LEAST: u32 = 28;

/// Looks at the daemon, and has a canary look for a way out of a container.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    const WHAT: &str = "docker";
    let is_wanted = config.sandbox == SandboxKind::Docker;
    let socket = &config.docker.socket;
    if let Err(error) = UnixStream::connect(socket) {
        let found = format!("no daemon answers at `{}`: {error}", socket.display());
        let (verdict, mend) = match is_wanted {
            true => (Verdict::Error, "start Docker, or choose other sandboxes with `--sandbox`"),
            false => (Verdict::Ok, "nothing must be done: agents run without it"),
        };
        return vec![Finding::new(WHAT, verdict, found, mend)];
    }
    match sandboxes::proven_containers(config).await {
        Ok((version, isolation)) => vec![
            graded(&version),
            Finding::new("docker isolation", Verdict::Ok, in_words(sandbox::Kind::Docker, &isolation), ""),
        ],
        Err(error) => {
            let verdict = if is_wanted { Verdict::Error } else { Verdict::Warning };
            let mend = "mend what the message names; agents are not started in containers until then";
            vec![Finding::new("docker isolation", verdict, format!("failed to {error}"), mend)]
        }
    }
}

/// An old daemon works, but has faults that are known.
fn graded(version: &str) -> Finding {
    let number = version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty());
    let is_old =
        number.and_then(|number| number.parse::<u32>().ok()).is_some_and(|major| major < VERSION_LEAST);
    match is_old {
        true => {
            let found = format!("{version}: older than {VERSION_LEAST}, with ways out that are known");
            let mend = "install Docker 28 or later, with runc 1.2.8 or later";
            Finding::new("docker", Verdict::Warning, found, mend)
        }
        false => Finding::new("docker", Verdict::Ok, version, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_daemon_is_said_to_be() {
        assert_eq!(graded("Docker 20.10.24+dfsg1, API 1.41").verdict, Verdict::Warning);
        assert_eq!(graded("Docker 29.0.1, API 1.52").verdict, Verdict::Ok);
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_missed_only_where_it_is_wanted() {
        let mut config = Config::default();
        config.docker.socket = "/nonexistent/docker.sock".into();
        assert_eq!(examine(&config).await[0].verdict, Verdict::Ok);
        config.sandbox = SandboxKind::Docker;
        assert_eq!(examine(&config).await[0].verdict, Verdict::Error);
    }
}
