//! Images: a name becomes the id of what it names now.

use super::daemon::Daemon;
use crate::{Error, Id};

/// An image, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// `sha256:…`, by its content: another image under the same name does not change what runs.
    pub(super) id: String,
    /// The directories that it declares to be volumes.
    pub(super) volumes: Vec<String>,
}

/// What the name stands for at this daemon. Nothing is ever fetched from a registry.
pub(super) async fn resolve(
    daemon: &Daemon,
    sandbox: &Id,
    name: &str,
    bytes_max: u64,
) -> Result<Image, Error> {
    let start = |reason: String| Error::Start { id: sandbox.clone(), reason };
    let Some(image) = daemon.image(name).await? else {
        return Err(start(format!(
            "the image `{name}` is not at the Docker daemon; build the platform's own with `hypercode image build`, \
             others with `docker build` or `docker pull`"
        )));
    };
    let bytes = u64::try_from(image.size.unwrap_or_default()).unwrap_or_default();
    if bytes > bytes_max {
        return Err(start(format!(
            "the image `{name}` has {bytes} bytes, and at most {bytes_max} are allowed"
        )));
    }
    let config = image.config.unwrap_or_default();
    let id = image.id.ok_or_else(|| start(format!("the daemon tells no id of the image `{name}`")))?;
    Ok(Image { id, volumes: config.volumes.unwrap_or_default() })
}
