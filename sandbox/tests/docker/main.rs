//! Docker sandboxes: the laws of the seam against the daemon of this host, and what only they can get wrong.
#![allow(clippy::unwrap_used, reason = "tests")]

mod attacks;
mod faults;
mod network;
mod proxy;
mod restarts;
mod support;
mod tampering;

use hypercode_sandbox::conformance::instance;
use hypercode_sandbox::{Level, Provider};

use support::Place;

mod laws {
    use super::Place;
    hypercode_sandbox::sandbox_conformance!(Place::new());
}

mod laws_over_tcp {
    use super::Place;
    hypercode_sandbox::sandbox_conformance!(Place::over_tcp());
}

#[tokio::test]
async fn it_says_what_it_isolates() {
    let place = Place::new();
    let Some(provider) = place.provider(&instance()).await else { return };
    assert_eq!(provider.isolation().level, Level::Namespaces);
    assert_eq!(provider.kind().to_string(), "docker");
}
