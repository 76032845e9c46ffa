//! The key that signs checkpoints. It signs nothing else, and no other key signs checkpoints.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use signed_note::{StandardSigner, StandardVerifier, VerifierList};

use super::checkpoint::{Checkpoint, Note};
use crate::private_file::{self, PrivateFileError};

/// The key's file in the data directory.
pub const KEY_FILE: &str = "checkpoint.key";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("open the checkpoint key `{}`: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The file can be read by others.
    #[error("use the checkpoint key `{}`: others may read it (mode {mode:04o}); run `chmod 600` on it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is there is no key.
    #[error("read the {which} key: expected `{form}`")]
    Malformed {
        /// Which of the two.
        which: &'static str,
        /// What it looks like.
        form: &'static str,
    },
}

/// What signs checkpoints. It never shows its secret, not even by `{:?}`.
#[derive(Clone)]
pub struct Signer {
    key: StandardSigner,
    public: PublicKey,
}

impl Signer {
    /// A fresh key of the log that is named `origin`, which has neither spaces nor pluses.
    pub fn generate(origin: &str) -> Self {
        let file = fresh(origin);
        Self::parse(&file).expect("a fresh key has its form")
    }

    /// Reads a key from its file: the private key on the first line, the public one on the second.
    fn parse(file: &str) -> Result<Self, KeyError> {
        let (secret, public) = file.trim_end().split_once('\n').unwrap_or_default();
        let form = "PRIVATE+KEY+<origin>+<8 hex digits>+<base64>, and the public key on the next line";
        let malformed = || KeyError::Malformed { which: "private", form };
        let key = StandardSigner::new(secret).map_err(|_| malformed())?;
        let public = PublicKey::parse(public)?;
        let is_pair = signed_note::Signer::key_id(&key) == signed_note::Verifier::key_id(&public.verifier);
        if is_pair { Ok(Self { key, public }) } else { Err(malformed()) }
    }

    /// The key in `path`, which only its owner may read; a fresh one for `origin` where there is none yet.
    pub fn open(path: &Path, origin: &str) -> Result<Self, KeyError> {
        let bytes = private_file::read_or_make(path, || fresh(origin).into_bytes()).map_err(|error| {
            let path = path.to_owned();
            match error {
                PrivateFileError::Io(error) => KeyError::File { path, error },
                PrivateFileError::Exposed { mode } => KeyError::Exposed { path, mode },
            }
        })?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Which log it signs for.
    pub fn origin(&self) -> &str {
        signed_note::Signer::name(&self.key)
    }

    /// What its signatures are checked with.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a checkpoint.
    pub fn sign(&self, checkpoint: &Checkpoint) -> Note {
        let mut note = signed_note::Note::new(checkpoint.text().as_bytes(), &[])
            .expect("a checkpoint has no control characters and ends its last line");
        note.add_sigs(&[&self.key]).expect("the key's name was checked, and Ed25519 signs any text");
        let text = String::from_utf8(note.to_bytes()).expect("a note is text");
        Note::parse(&text).expect("a checkpoint has its form")
    }
}

/// The text of a key's file.
fn fresh(origin: &str) -> String {
    let (secret, public) = signed_note::generate_key(&mut rand_core::OsRng, origin);
    format!("{secret}\n{public}\n")
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public)
    }
}

/// What checks the signatures of one key: `<origin>+<8 hex digits>+<base64>`.
#[derive(Clone)]
pub struct PublicKey {
    text: String,
    verifier: StandardVerifier,
}

impl PublicKey {
    /// Reads a public key from its text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let form = "<origin>+<8 hex digits>+<base64>";
        let text = text.trim();
        let verifier = StandardVerifier::new(text);
        let verifier = verifier.map_err(|_| KeyError::Malformed { which: "public", form })?;
        Ok(Self { text: text.to_owned(), verifier })
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which log it signs for.
    pub fn name(&self) -> &str {
        signed_note::Verifier::name(&self.verifier)
    }

    /// Whether the note bears a signature of this key, and no bad one under its name.
    pub fn check(&self, note: &Note) -> bool {
        let known = VerifierList::new(vec![Box::new(self.verifier.clone())]);
        let note = signed_note::Note::from_bytes(note.as_str().as_bytes());
        note.is_ok_and(|note| note.verify(&known).is_ok())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for PublicKey {}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::id::Digest;

    #[test]
    fn a_key_is_made_once_for_its_owner_only_and_signs_for_its_origin() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(KEY_FILE);
        let made = Signer::open(&path, "hypercode/a").expect("a key");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        let again = Signer::open(&path, "hypercode/other").expect("the same key");
        assert_eq!((again.origin(), again.public()), ("hypercode/a", made.public()));
        assert!(!format!("{made:?}").contains("PRIVATE"));

        let checkpoint = Checkpoint { origin: "hypercode/a".into(), size: 7, root: Digest::of(b"r") };
        let note = made.sign(&checkpoint);
        assert_eq!(note.checkpoint(), &checkpoint);
        assert!(again.public().check(&note));
        assert!(!Signer::generate("hypercode/a").public().check(&note));
        let forged = Note::parse(&note.as_str().replacen("\n7\n", "\n8\n", 1)).expect("its form is right");
        assert!(!made.public().check(&forged));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
        assert!(matches!(Signer::open(&path, "x"), Err(KeyError::Exposed { mode: 0o640, .. })));
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "nonsense").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        assert!(matches!(Signer::open(&path, "x"), Err(KeyError::Malformed { .. })));
        assert!(PublicKey::parse("a+00000000+AAAA").is_err());
    }
}
