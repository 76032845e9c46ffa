//! Checkpoints: what the tree was at a size, as a text that is signed (C2SP `tlog-checkpoint`, `signed-note`).
//!
//! ```text
//! hypercode/3f2a91bc
//! 4000
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — hypercode/3f2a91bc Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+Z…
//! ```

use std::fmt;

use tlog_tiles::Hash;

use crate::id::Digest;

/// What the tree was when it had `size` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log it is.
    pub origin: String,
    /// Its leaves: the position of the last event.
    pub size: u64,
    /// Its root.
    pub root: Digest,
}

/// A text is no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read a checkpoint: {reason} in `{}`", found.lines().next().unwrap_or_default())]
pub struct Malformed {
    /// The text, shortened.
    pub found: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Malformed {
    fn new(found: &str, reason: &'static str) -> Self {
        Self { found: found.chars().take(80).collect(), reason }
    }
}

impl Checkpoint {
    /// The text that is signed.
    pub(super) fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, Hash(self.root.0))
    }

    fn parse(text: &str) -> Result<Self, Malformed> {
        let read = tlog_tiles::Checkpoint::from_bytes(text.as_bytes());
        let read = read.map_err(|_| Malformed::new(text, "no origin, size and root stand"))?;
        Ok(Self { origin: read.origin().to_owned(), size: read.size(), root: Digest(read.hash().0) })
    }
}

/// A checkpoint with its signatures. Its form is checked, its signatures are not: see [`super::PublicKey::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    checkpoint: Checkpoint,
    text: String,
}

impl Note {
    /// Reads a signed checkpoint.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let note = signed_note::Note::from_bytes(text.as_bytes());
        let note = note.map_err(|_| Malformed::new(text, "it is no signed note"))?;
        let signed = std::str::from_utf8(note.text()).expect("a note's text was read from a text");
        Ok(Self { checkpoint: Checkpoint::parse(signed)?, text: text.to_owned() })
    }

    /// What was signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as it is stored and given away.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a file of notes that follow each other, each with an empty line after it. Every one is read by itself: one
/// that was torn or changed does not hide the others.
pub fn notes(file: &str) -> Vec<Result<Note, Malformed>> {
    let mut read = Vec::new();
    let mut text = "";
    for part in file.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let part = part.trim_matches('\n');
        match (part.starts_with('—'), text) {
            (true, signed) => read.push(Note::parse(&format!("{signed}\n\n{part}\n"))),
            (false, "") => {}
            (false, unsigned) => read.push(Note::parse(unsigned)),
        }
        text = if part.starts_with('—') { "" } else { part };
    }
    if !text.is_empty() {
        read.push(Note::parse(text));
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Signer;

    fn note(size: u64) -> Note {
        Signer::generate("hypercode/test").sign(&Checkpoint {
            origin: "hypercode/test".to_owned(),
            size,
            root: Digest::of(b"root"),
        })
    }

    #[test]
    fn notes_in_one_file_are_read_each_by_itself() {
        let written = [note(1), note(2), note(3)];
        let mut file: String = written.iter().map(|note| format!("{note}\n")).collect();
        assert_eq!(notes(&file).into_iter().collect::<Result<Vec<_>, _>>().expect("notes"), written);
        file = file.replacen("\n2\n", "\nzwei\n", 1);
        let read = notes(&file);
        assert_eq!((read[0].as_ref(), read[2].as_ref()), (Ok(&written[0]), Ok(&written[2])));
        assert!(read[1].as_ref().is_err_and(|error| error.to_string().contains("origin, size and root")));
        assert!(notes("").is_empty() && notes("\n").is_empty());
        assert!(notes("nonsense")[0].is_err());
        let torn = format!("{}hypercode/te\n\n{}", format_args!("{}\n", note(1)), note(2));
        let read: Vec<bool> = notes(&torn).iter().map(Result::is_ok).collect();
        assert_eq!(read, [true, false, true]);
    }
}
