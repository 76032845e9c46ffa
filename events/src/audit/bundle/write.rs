//! Writing a bundle.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::translate::Format;
use super::{BundleError, CHECKPOINTS, COSIGNED, EVENTS, FORMAT, KEYS, MANIFEST, Manifest, SUMS};
use crate::api::{Problem, ProblemKind};
use crate::audit::checkpoint::Note;
use crate::audit::key::PublicKey;
use crate::audit::line::Line;
use crate::audit::tile::{Tile, Tiles};
use crate::audit::verify::{Evidence, Next};
use crate::event::Recorded;
use crate::id::{Digest, Timestamp};

/// What is to be exported.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The position of the first event.
    pub from: u64,
    /// The position of the last.
    pub to: u64,
    /// Checkpoints, the smallest first; the last one covers `to`.
    pub checkpoints: Vec<Note>,
    /// Checkpoints among the events that witnesses have cosigned.
    pub cosigned: Vec<Note>,
    /// The keys that have signed.
    pub keys: Vec<PublicKey>,
    /// The form of the translation.
    pub format: Format,
}

/// Writes the events of `evidence`, which begins with the first that is wanted, and what proves them, into the new
/// directory `directory`.
///
/// # Errors
/// When the directory exists or cannot be written, or the evidence does not have what is wanted.
pub async fn export(
    wanted: Wanted,
    evidence: &mut dyn Evidence,
    directory: &Path,
) -> Result<Manifest, BundleError> {
    if wanted.from == 0 || wanted.to < wanted.from {
        let detail = format!("events {} to {}: expected positions from 1, in order", wanted.from, wanted.to);
        return Err(Problem::new(ProblemKind::Invalid, detail).into());
    }
    let Some(last) = wanted.checkpoints.last().cloned() else {
        return Err(
            Problem::new(ProblemKind::NotFound, "there is no checkpoint to prove the events with").into()
        );
    };
    let size = last.checkpoint().size;
    let (before, previous) = before(evidence, &wanted).await?;
    let beyond = match wanted.to < size {
        true => {
            let tiles = tiles(evidence, size, wanted.to - 1).await?;
            tiles.consistency(size, wanted.to).ok_or_else(|| incomplete(size))?
        }
        false => Vec::new(),
    };
    let mut files = Files::create(directory)?;
    let hash = write_events(&wanted, evidence, &mut files).await?;
    let kept = wanted.checkpoints.iter().filter(|note| note.checkpoint().size >= wanted.from);
    let kept: Vec<&Note> =
        kept.filter(|note| note.checkpoint().size <= wanted.to || note.checkpoint().size == size).collect();
    let manifest = Manifest {
        format: FORMAT,
        program: format!("hypercode {}", env!("CARGO_PKG_VERSION")),
        exported_at: Timestamp::now().rfc3339(),
        origin: last.checkpoint().origin.clone(),
        from: wanted.from,
        to: wanted.to,
        hash,
        previous,
        before,
        checkpoints: kept.iter().map(|note| note.checkpoint().size).collect(),
        beyond,
    };
    let manifest_text = serde_json::to_string_pretty(&manifest).expect("a manifest is plain data");
    files.write(MANIFEST, &format!("{manifest_text}\n"))?;
    files.write(CHECKPOINTS, &kept.iter().map(|note| format!("{note}\n")).collect::<String>())?;
    if !wanted.cosigned.is_empty() {
        files.write(COSIGNED, &wanted.cosigned.iter().map(|note| format!("{note}\n")).collect::<String>())?;
    }
    files.write(KEYS, &wanted.keys.iter().map(|key| format!("{key}\n")).collect::<String>())?;
    files.write("README.md", &readme(&manifest))?;
    files.write("FORMAT.md", include_str!("FORMAT.md"))?;
    files.write("verify.py", include_str!("verify.py"))?;
    files.finish()?;
    Ok(manifest)
}

/// The tree before the first event, and the hash before it.
async fn before(evidence: &mut dyn Evidence, wanted: &Wanted) -> Result<(Vec<Digest>, Digest), BundleError> {
    let begun = wanted.from.saturating_sub(1);
    if begun == 0 {
        return Ok((Vec::new(), Digest::ZERO));
    }
    let tiles = tiles(evidence, begun, begun - 1).await?;
    match (tiles.range(begun), tiles.leaf(begun - 1)) {
        (Some(range), Some(previous)) => Ok((range.subtrees().to_vec(), previous)),
        _ => Err(incomplete(begun).into()),
    }
}

async fn tiles(evidence: &mut dyn Evidence, size: u64, index: u64) -> Result<Tiles, Problem> {
    let mut tiles = Tiles::default();
    for (level, number) in Tile::above(size, index) {
        if let Some(hashes) = evidence.tile(level, number).await? {
            tiles.insert(Tile { level, number, hashes });
        }
    }
    Ok(tiles)
}

fn incomplete(size: u64) -> Problem {
    let detail = format!("the tree of {size} events is not complete; run `hypercode audit verify`");
    Problem::new(ProblemKind::Unavailable, detail)
}

/// Writes the wanted events; gives the hash of the last.
async fn write_events(
    wanted: &Wanted,
    evidence: &mut dyn Evidence,
    files: &mut Files,
) -> Result<Digest, BundleError> {
    let mut events = files.begin(EVENTS)?;
    let mut translation = wanted.format.file().map(|name| files.begin(name)).transpose()?;
    let mut next = wanted.from;
    let mut last = Digest::ZERO;
    while next <= wanted.to {
        let batch = match evidence.next().await? {
            Next::Events(batch) => batch,
            Next::Damaged { position, reason } => {
                let detail = format!("the event at position {position} cannot be read: {reason}");
                return Err(Problem::new(ProblemKind::Failed, detail).into());
            }
            Next::End => {
                let detail = format!("the log ends before position {next}, which is wanted");
                return Err(Problem::new(ProblemKind::NotFound, detail).into());
            }
        };
        let range = next..=wanted.to;
        for event in batch.iter().filter(|event| range.contains(&event.position.0)) {
            events.line(&line(event))?;
            if let Some(translation) = &mut translation {
                translation.line(&wanted.format.line(event))?;
            }
            (next, last) = (event.position.0 + 1, event.hash);
        }
    }
    files.end(events)?;
    translation.map_or(Ok(()), |translation| files.end(translation))?;
    Ok(last)
}

fn line(event: &Recorded) -> String {
    serde_json::to_string(&Line::from(event)).expect("an event is plain data")
}

fn readme(manifest: &Manifest) -> String {
    include_str!("README.md")
        .replace("{origin}", &manifest.origin)
        .replace("{from}", &manifest.from.to_string())
        .replace("{to}", &manifest.to.to_string())
        .replace("{exported_at}", &manifest.exported_at)
        .replace("{program}", &manifest.program)
        .replace("{size}", &manifest.checkpoints.last().map(u64::to_string).unwrap_or_default())
}

/// The files of a bundle that is being written, and their checksums.
struct Files {
    directory: PathBuf,
    sums: Vec<(String, String)>,
}

/// A file that is being written.
struct Lines {
    name: &'static str,
    path: PathBuf,
    file: BufWriter<File>,
    sum: sha2::Sha256,
}

impl Lines {
    fn line(&mut self, text: &str) -> Result<(), BundleError> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        self.sum.update(bytes);
        self.file.write_all(bytes).map_err(failed("write", &self.path))
    }
}

impl Files {
    fn create(directory: &Path) -> Result<Self, BundleError> {
        std::fs::create_dir(directory).map_err(failed("make", directory))?;
        Ok(Self { directory: directory.to_owned(), sums: Vec::new() })
    }

    fn begin(&self, name: &'static str) -> Result<Lines, BundleError> {
        let path = self.directory.join(name);
        let file = File::create(&path).map_err(failed("write", &path))?;
        Ok(Lines { name, path, file: BufWriter::new(file), sum: sha2::Sha256::new() })
    }

    fn end(&mut self, mut lines: Lines) -> Result<(), BundleError> {
        lines.file.flush().map_err(failed("write", &lines.path))?;
        self.sums.push((lines.name.to_owned(), hex::encode(lines.sum.finalize())));
        Ok(())
    }

    fn write(&mut self, name: &'static str, text: &str) -> Result<(), BundleError> {
        let mut lines = self.begin(name)?;
        lines.write(text.as_bytes())?;
        self.end(lines)
    }

    /// Writes the checksums, in the form of `sha256sum`.
    fn finish(mut self) -> Result<(), BundleError> {
        self.sums.sort();
        let sums: String = self.sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        let path = self.directory.join(SUMS);
        std::fs::write(&path, sums).map_err(failed("write", &path))
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |error| BundleError::File { action, path, error }
}
