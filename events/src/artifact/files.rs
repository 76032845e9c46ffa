//! Artifacts as files: `<first two hex digits>/<the other 62>` under one directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::Digest as _;
use tokio::fs::{self, File};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::{ARTIFACT_BYTES_MAX, Artifact, ArtifactError, ArtifactStore};
use crate::id::Digest;

/// Where bytes are collected until their digest is known.
const UNFINISHED: &str = "unfinished";

/// Bytes that are read from a source at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// An artifact store in a directory. Clones are handles to the same store.
#[derive(Clone, Debug)]
pub struct Files {
    directory: Arc<Path>,
    /// Counts the unfinished files of this process, which owns the directory.
    unfinished: Arc<AtomicU64>,
}

impl Files {
    /// Opens `directory`, which is made if it is missing, and removes what earlier puts left unfinished.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, ArtifactError> {
        let directory: Arc<Path> = directory.as_ref().into();
        let unfinished = directory.join(UNFINISHED);
        match fs::remove_dir_all(&unfinished).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(unavailable(&unfinished, &error));
            }
            _ => {}
        }
        fs::create_dir_all(&unfinished).await.map_err(|error| unavailable(&unfinished, &error))?;
        Ok(Self { directory, unfinished: Arc::default() })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.directory.join(&name[..2]).join(&name[2..])
    }

    /// Gives a finished file its name, durably.
    async fn keep(&self, file: &Path, digest: Digest) -> io::Result<()> {
        let path = self.path(digest);
        let parent = path.parent().expect("an artifact's path has a parent");
        match fs::create_dir(parent).await {
            Ok(()) => sync_directory(&self.directory).await?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // Over a file of the same name: its bytes are the same, or damaged.
        fs::rename(file, &path).await?;
        sync_directory(parent).await
    }
}

#[async_trait]
impl ArtifactStore for Files {
    async fn put_from(&self, source: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Artifact, ArtifactError> {
        let number = self.unfinished.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(UNFINISHED).join(number.to_string());
        let failed = |error: io::Error| unavailable(&path, &error);
        let unfinished = Unfinished(&path);
        let mut file = File::create_new(&path).await.map_err(failed)?;
        let artifact = copy(source, &mut file, &path).await?;
        file.sync_all().await.map_err(failed)?;
        self.keep(&path, artifact.digest).await.map_err(failed)?;
        std::mem::forget(unfinished);
        Ok(artifact)
    }

    async fn get(&self, digest: Digest) -> Result<Option<Bytes>, ArtifactError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(&path, &error)),
        };
        let hashed = tokio::task::spawn_blocking(move || (Digest::of(&bytes), bytes)).await;
        let (found, bytes) =
            hashed.map_err(|error| ArtifactError::Unavailable { reason: error.to_string().into() })?;
        if found == digest { Ok(Some(bytes.into())) } else { Err(ArtifactError::Damaged { digest }) }
    }

    async fn size(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
        let path = self.path(digest);
        match fs::metadata(&path).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(&path, &error)),
        }
    }

    async fn after(&self, after: Option<Digest>, limit: usize) -> Result<Vec<Digest>, ArtifactError> {
        let first = after.map_or(0, |after| after.0[0]);
        let mut found = Vec::new();
        for prefix in first..=u8::MAX {
            let directory = self.directory.join(format!("{prefix:02x}"));
            let listed = digests(&directory, prefix).await;
            let mut listed = listed.map_err(|error| unavailable(&directory, &error))?;
            listed.retain(|digest| Some(*digest) > after);
            listed.sort_unstable();
            found.extend(listed);
            if found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn delete(&self, digest: Digest) -> Result<bool, ArtifactError> {
        let path = self.path(digest);
        match fs::remove_file(&path).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unavailable(&path, &error)),
        }
        let parent = path.parent().expect("an artifact's path has a parent");
        sync_directory(parent).await.map_err(|error| unavailable(parent, &error))?;
        Ok(true)
    }
}

/// The digests of the artifacts in a directory, whose name is the first byte of all of them; what else lies there is
/// passed over.
async fn digests(directory: &Path, prefix: u8) -> io::Result<Vec<Digest>> {
    let mut entries = match fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut digests = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        digests.extend(name.to_str().and_then(|rest| format!("{prefix:02x}{rest}").parse::<Digest>().ok()));
    }
    Ok(digests)
}

/// Removes the file of a put that failed or was dropped.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is opened again.
        let _ = std::fs::remove_file(self.0);
    }
}

async fn copy(
    source: &mut (dyn AsyncRead + Send + Unpin),
    file: &mut File,
    path: &Path,
) -> Result<Artifact, ArtifactError> {
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut size = 0;
    loop {
        let read = source.read(&mut chunk).await;
        let read = read.map_err(|error| ArtifactError::Interrupted { reason: error.to_string().into() })?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge);
        }
        hash.update(&chunk[..read]);
        file.write_all(&chunk[..read]).await.map_err(|error| unavailable(path, &error))?;
    }
    Ok(Artifact { digest: Digest(hash.finalize().into()), size })
}

async fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path).await?.sync_all().await
}

fn unavailable(path: &Path, error: &io::Error) -> ArtifactError {
    ArtifactError::Unavailable { reason: format!("`{}`: {error}", path.display()).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directory lives as long as its store.
    async fn fresh() -> Kept {
        let directory = tempfile::tempdir().expect("a directory");
        Kept { store: Files::open(directory.path()).await.expect("it opens"), directory }
    }

    struct Kept {
        store: Files,
        directory: tempfile::TempDir,
    }

    #[async_trait]
    impl ArtifactStore for Kept {
        async fn put_from(
            &self,
            source: &mut (dyn AsyncRead + Send + Unpin),
        ) -> Result<Artifact, ArtifactError> {
            self.store.put_from(source).await
        }
        async fn get(&self, digest: Digest) -> Result<Option<Bytes>, ArtifactError> {
            self.store.get(digest).await
        }
        async fn delete(&self, digest: Digest) -> Result<bool, ArtifactError> {
            self.store.delete(digest).await
        }
        async fn size(&self, digest: Digest) -> Result<Option<u64>, ArtifactError> {
            self.store.size(digest).await
        }
        async fn after(&self, after: Option<Digest>, limit: usize) -> Result<Vec<Digest>, ArtifactError> {
            self.store.after(after, limit).await
        }
    }

    crate::artifact_store_conformance!(fresh());

    fn unfinished(kept: &Kept) -> usize {
        std::fs::read_dir(kept.directory.path().join(UNFINISHED)).expect("it is there").count()
    }

    #[tokio::test]
    async fn a_damaged_file_is_reported_and_mended_by_putting_again() {
        let kept = fresh().await;
        let digest = kept.put("precious".into()).await.expect("it is kept").digest;
        std::fs::write(kept.store.path(digest), "precioux").expect("written");
        assert_eq!(kept.get(digest).await, Err(ArtifactError::Damaged { digest }));
        kept.put("precious".into()).await.expect("it is kept again");
        assert_eq!(kept.get(digest).await, Ok(Some("precious".into())));
    }

    #[tokio::test]
    async fn it_survives_a_restart_and_unfinished_files_do_not() {
        let kept = fresh().await;
        let digest = kept.put("precious".into()).await.expect("it is kept").digest;
        std::fs::write(kept.directory.path().join(UNFINISHED).join("0"), "half").expect("written");
        let again = Files::open(kept.directory.path()).await.expect("it opens again");
        assert_eq!(again.get(digest).await, Ok(Some("precious".into())));
        assert_eq!(unfinished(&kept), 0);
        assert_eq!(again.put("other".into()).await.expect("it is kept").size, 5);
    }

    #[tokio::test]
    async fn a_put_that_fails_or_is_dropped_leaves_no_file() {
        let kept = fresh().await;
        let (mut source, sink) = tokio::io::duplex(16);
        let mut put = Box::pin(kept.put_from(&mut source));
        let mut polled = 0;
        std::future::poll_fn(|context| {
            polled += 1;
            assert!(put.as_mut().poll(context).is_pending());
            if unfinished(&kept) == 1 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        drop(put);
        drop(sink);
        assert_eq!(unfinished(&kept), 0);
    }
}
