//! The administrator's token, made by `up` in the data directory, and how a token is shown.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use events::Digest;
use events::api::{Problem, ProblemKind};
use events::private_file::{self, PrivateFileError};

use super::caller::Headers;

/// The header that a token is shown in.
const AUTHORIZATION: &str = "Authorization";
/// Most bytes that a token may have.
const TOKEN_BYTES_MAX: usize = 4_096;

/// A bearer token (RFC 6750). It is never shown, not even by `{:?}`.
#[derive(Clone)]
pub struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("open the token file `{}`: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: std::io::Error,
    },
    /// The file can be read by others.
    #[error(
        "use the token file `{}`: others may read it (mode {mode:04o}); run `chmod 600` on it, or delete it to get a new token",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is there is no token.
    #[error(
        "use the token of {origin}: expected 1 to {TOKEN_BYTES_MAX} visible ASCII characters in one line"
    )]
    Malformed {
        /// Where it came from.
        origin: String,
    },
}

impl Token {
    /// A token as it was written; `origin` says where, for the error.
    pub fn parse(text: &str, origin: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let legal = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        match legal {
            true => Ok(Self(text.to_owned())),
            false => Err(TokenError::Malformed { origin: origin.to_owned() }),
        }
    }

    /// The token in a file.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |error| TokenError::File { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut text = String::new();
        file.take(TOKEN_BYTES_MAX as u64 + 2).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text, &format!("`{}`", path.display()))
    }

    /// The token in a file that nobody else may read; a new one of 256 random bits where there is no file yet.
    pub fn read_or_create(path: &Path) -> Result<Self, TokenError> {
        let bytes = private_file::read_or_make(path, || Self::random().0.into_bytes()).map_err(|error| {
            let path = path.to_owned();
            match error {
                PrivateFileError::Exposed { mode } => TokenError::Exposed { path, mode },
                PrivateFileError::Io(error) => TokenError::File { path, error },
                other => TokenError::File { path, error: std::io::Error::other(other) },
            }
        })?;
        Self::parse(&String::from_utf8_lossy(&bytes), &format!("`{}`", path.display()))
    }

    /// A token of 256 bits from the operating system.
    pub fn random() -> Self {
        // A UUIDv4 has 122 random bits: three have enough for a digest's 256.
        let seeds = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let bytes: Vec<u8> = seeds.iter().flat_map(|seed| *seed.as_bytes()).collect();
        Self(format!("hc_{}", Digest::of(&bytes)))
    }

    /// The token's text, for the header of a request.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this token, in a time that says nothing about where they differ.
    pub(crate) fn is(&self, shown: &str) -> bool {
        let (own, shown) = (Digest::of(self.0.as_bytes()), Digest::of(shown.as_bytes()));
        own.0.iter().zip(shown.0).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }
}

/// The bearer token that these headers show (RFC 6750 §2.1).
///
/// Errors: `unauthenticated` for none and for a malformed header.
pub(super) fn bearer(headers: &dyn Headers) -> Result<&str, Problem> {
    let refused = |detail: &str| Problem::new(ProblemKind::Unauthenticated, detail);
    if !headers.has(AUTHORIZATION) {
        return Err(refused(
            "send the header `Authorization: Bearer <token>`; `hypercode up` writes the administrator's token to `admin.token` in its data directory, and `hypercode token mint` makes others",
        ));
    }
    let shown = headers.header(AUTHORIZATION).and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    shown
        .filter(|shown| shown.len() <= TOKEN_BYTES_MAX)
        .ok_or_else(|| refused("the header `Authorization` is not of the form `Bearer <token>`"))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_file_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let made = Token::read_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Token::read_or_create(&path).unwrap().is(made.expose()));
        assert_eq!(format!("{made:?}"), "Token(…)");

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Token::read_or_create(&path), Err(TokenError::Exposed { mode: 0o644, .. })));
        std::fs::write(&path, "two words").unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::Malformed { .. })));
    }

    #[test]
    fn only_the_token_itself_opens() {
        let token = Token::random();
        struct Shown<'a>(Option<&'a str>);
        impl Headers for Shown<'_> {
            fn header(&self, _: &str) -> Option<&str> {
                self.0
            }
            fn has(&self, _: &str) -> bool {
                self.0.is_some()
            }
        }
        let with = |value: &str| bearer(&Shown(Some(value))).map(|shown| token.is(shown));
        assert_eq!(with(&format!("bearer {}", token.expose())), Ok(true));
        assert_eq!(with(&format!("Bearer {}x", token.expose())), Ok(false));
        for wrong in ["Basic x", "Bearer", &format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1))] {
            assert_eq!(with(wrong).unwrap_err().kind, ProblemKind::Unauthenticated, "{wrong}");
        }
        assert_eq!(bearer(&Shown(None)).unwrap_err().kind, ProblemKind::Unauthenticated);
    }
}
