//! Where the server is: an address that never shows its password.

use std::fmt;
use std::str::FromStr;

use async_nats::ServerAddr;

use crate::percent;

/// One or more servers of one cluster, `nats://` or `tls://`, joined by commas; user and password may stand in front
/// of a host, and are the same for all.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    servers: Vec<ServerAddr>,
    login: Option<(String, String)>,
}

/// A text is no address. It is not shown, for it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `nats://HOST:PORT` or `tls://HOST:PORT`, several joined by commas{reason}")]
pub struct InvalidAddress {
    reason: String,
}

impl Address {
    pub(super) fn servers(&self) -> &[ServerAddr] {
        &self.servers
    }

    pub(super) fn login(&self) -> Option<(String, String)> {
        self.login.clone()
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |reason: &str| InvalidAddress { reason: format!("; {reason}") };
        let (mut servers, mut login) = (Vec::new(), None);
        for part in text.split(',') {
            let server: ServerAddr = part.trim().parse().map_err(|_| invalid("it is no URL"))?;
            if !matches!(server.scheme(), "nats" | "tls") || server.host().is_empty() {
                return Err(invalid("the scheme is another, or there is no host"));
            }
            if let Some(user) = server.username() {
                let plain =
                    |text| percent::decode(text).ok_or_else(|| invalid("user or password is not UTF-8"));
                let this = (plain(user)?, plain(server.password().unwrap_or_default())?);
                if login.as_ref().is_some_and(|known| *known != this) {
                    return Err(invalid("user and password differ between its servers"));
                }
                login = Some(this);
            }
            let mut url = server.into_inner();
            // Without them the client's own log cannot show them either.
            let bare = url.set_username("").and_then(|()| url.set_password(None)).map(|()| url);
            let bare = bare.map_err(|()| invalid("there is no host"))?;
            servers.push(ServerAddr::from_url(bare).map_err(|_| invalid("the scheme is another"))?);
        }
        Ok(Self { servers, login })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, server) in self.servers.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}://{}:{}", server.scheme(), server.host(), server.port())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_used_and_never_shown() {
        let address: Address = "nats://desk:s%20cret@h:1, tls://i".parse().expect("an address");
        assert_eq!(address.login(), Some(("desk".to_owned(), "s cret".to_owned())));
        assert_eq!(address.to_string(), "nats://h:1,tls://i:4222");
        for shown in [format!("{address:?}"), format!("{:?}", address.servers())] {
            assert!(!shown.contains("cret"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_address_is_not_shown_either() {
        for bad in ["", "http://h", "ws://h", "nats://", "nats://u:secret@", "nats://h:x", "a,,b"] {
            let error = bad.parse::<Address>().expect_err(bad).to_string();
            assert!(error.contains("nats://HOST:PORT") && !error.contains("secret"), "{error}");
        }
    }
}
