//! What can be set about the bus.

use std::path::PathBuf;

use nats::Address;

use super::setting::{Setting, number, path};

/// How the bus is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// Where it is; `None` is no bus.
    pub url: Option<Address>,
    /// The file with the seed of the nkey by which the platform shows who it is.
    pub nkey: Option<PathBuf>,
    /// The credentials file by which it does.
    pub credentials: Option<PathBuf>,
    /// The certificates that are trusted, and no others; `None` is the system's.
    pub authorities: Option<PathBuf>,
    /// The platform's own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// How many servers of a cluster keep the events.
    pub replicas: usize,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: None,
            nkey: None,
            credentials: None,
            authorities: None,
            certificate: None,
            key: None,
            replicas: 1,
        }
    }
}

/// A file that is read when the bus is connected to.
const fn file(
    key: &'static str,
    meaning: &'static str,
    set: fn(&mut super::Config, &str) -> Result<(), String>,
) -> Setting {
    Setting { key, form: "file", default: "none", meaning, set }
}

/// Where the bus is.
pub(super) const URL: Setting = Setting {
    key: "nats_url",
    form: "`nats://` or `tls://`, host and port; several joined by commas",
    default: "none",
    meaning: "The NATS servers on which events are published and commands taken. `nats://USER:PASSWORD@HOST` is possible; the password is never shown.",
    set: |config, text| {
        let address: Address = text.parse().map_err(|error: nats::InvalidAddress| error.to_string())?;
        config.nats.url = Some(address);
        Ok(())
    },
};

/// The platform's nkey.
pub(super) const NKEY: Setting = file("nats_nkey", "The seed of the platform's nkey.", |config, text| {
    path(text).map(|file| config.nats.nkey = Some(file))
});

/// The platform's credentials.
pub(super) const CREDENTIALS: Setting =
    file("nats_credentials", "The platform's credentials file (`.creds`).", |config, text| {
        path(text).map(|file| config.nats.credentials = Some(file))
    });

/// Whom the platform trusts.
pub(super) const AUTHORITIES: Setting = file(
    "nats_ca",
    "Certificates in PEM: servers are trusted by these alone, and must encrypt.",
    |config, text| path(text).map(|file| config.nats.authorities = Some(file)),
);

/// The platform's certificate.
pub(super) const CERTIFICATE: Setting = file(
    "nats_certificate",
    "The platform's own certificate in PEM, where servers want one.",
    |config, text| path(text).map(|file| config.nats.certificate = Some(file)),
);

/// The key of that certificate.
pub(super) const KEY: Setting = file("nats_key", "The key of that certificate.", |config, text| {
    path(text).map(|file| config.nats.key = Some(file))
});

/// How many servers keep the events.
pub(super) const REPLICAS: Setting = Setting {
    key: "nats_replicas",
    form: "number, 1 to 5",
    default: "`1`",
    meaning: "How many servers of a cluster keep the stream of events, when the platform makes it.",
    set: |config, text| number(text, 1, 5).map(|count| config.nats.replicas = count as usize),
};
