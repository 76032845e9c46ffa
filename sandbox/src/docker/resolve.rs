//! Images: a name becomes the id of what it names now.

use super::daemon::Daemon;
use crate::Error;

/// An image, pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// `sha256:…`, by its content: another image under the same name does not change what runs.
    pub(super) id: String,
    /// The directories that it declares to be volumes.
    pub(super) volumes: Vec<String>,
    /// The names of the variables that it sets.
    pub(super) variables: Vec<String>,
}

/// What the name stands for at this daemon. Nothing is ever fetched from a registry.
pub(super) async fn resolve(daemon: &Daemon, name: &str, bytes_max: u64) -> Result<Image, Error> {
    let unfit = |reason: String| Error::Image { name: name.to_owned(), reason };
    let Some(image) = daemon.image(name).await? else {
        let reason = "it is not at the Docker daemon; build the platform's own with `hypercode image build`, others \
                      with `docker build` or `docker pull`";
        return Err(unfit(reason.to_owned()));
    };
    let bytes = u64::try_from(image.size.unwrap_or_default()).unwrap_or_default();
    if bytes > bytes_max {
        return Err(unfit(format!("it has {bytes} bytes, and at most {bytes_max} are allowed")));
    }
    let config = image.config.unwrap_or_default();
    let id = image.id.ok_or_else(|| unfit("the daemon does not tell its id".to_owned()))?;
    let variables = config.env.unwrap_or_default();
    let name = |text: String| text.split('=').next().unwrap_or_default().to_owned();
    Ok(Image {
        id,
        volumes: config.volumes.unwrap_or_default(),
        variables: variables.into_iter().map(name).collect(),
    })
}
