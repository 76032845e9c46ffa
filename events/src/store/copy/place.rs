//! Where a log is: a data directory, or a database.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{CopyError, Side};
use crate::store::postgres::{self, Database};
use crate::store::sqlite::{self, LOG_FILE};

/// Where a log is. Shows itself without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In files of this data directory.
    Directory(PathBuf),
    /// In this database.
    Database(Box<Database>),
}

/// The text names no place. It is not repeated, since it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected `sqlite:DIRECTORY` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`")]
pub struct InvalidPlace {
    reason: String,
}

impl FromStr for Place {
    type Err = InvalidPlace;

    /// The log's file stands for the directory that it is in.
    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let Some(path) = text.strip_prefix("sqlite:") else {
            return match text.parse() {
                Ok(database) => Ok(Self::Database(Box::new(database))),
                Err(_) if !text.starts_with("postgres") => {
                    Err(InvalidPlace { reason: "the place is of no kind that is known".to_owned() })
                }
                Err(error) => Err(InvalidPlace { reason: format!("the place cannot be read: {error}") }),
            };
        };
        let path = Path::new(path);
        let directory = match path.file_name().is_some_and(|name| name == LOG_FILE) {
            true => path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or_else(|| Path::new(".")),
            false => path,
        };
        match directory.as_os_str().is_empty() {
            true => Err(InvalidPlace { reason: "the place names no directory".to_owned() }),
            false => Ok(Self::Directory(directory.to_owned())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "sqlite:{}", path.display()),
            Self::Database(database) => write!(f, "{database}"),
        }
    }
}

impl Place {
    /// Whether both are one, as far as that can be seen.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Directory(a), Self::Directory(b)) => {
                a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
            }
            _ => self == other,
        }
    }

    /// The log that is here, to be read while nobody uses it.
    pub(super) async fn source(&self) -> Result<Box<dyn Side>, CopyError> {
        Ok(match self {
            Self::Directory(path) if !path.join(LOG_FILE).is_file() => {
                return Err(CopyError::Missing { place: self.clone() });
            }
            Self::Directory(path) => Box::new(sqlite::Side::source(path).await?),
            Self::Database(database) => Box::new(postgres::Side::source(database).await?),
        })
    }

    /// The log that is here, or an empty one, to be written to while nobody uses it.
    pub(super) async fn target(&self) -> Result<Box<dyn Side>, CopyError> {
        Ok(match self {
            Self::Directory(path) => Box::new(sqlite::Side::target(path).await?),
            Self::Database(database) => Box::new(postgres::Side::target(database).await?),
        })
    }
}
