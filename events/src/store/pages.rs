//! A stream read page by page, the next one while the caller works on the one before.

use std::future::Future;

use tokio::task::JoinHandle;

use crate::event::Recorded;
use crate::id::Version;

/// The pages of a stream, one read ahead.
pub struct Pages<R, E> {
    read: R,
    ahead: Option<JoinHandle<Result<Vec<Recorded>, E>>>,
}

impl<R, F, E> Pages<R, E>
where
    R: Fn(Version) -> F,
    F: Future<Output = Result<Vec<Recorded>, E>> + Send + 'static,
    E: Send + 'static,
{
    /// The pages that `read` gives of what comes after a version, beginning after `after`.
    pub fn after(after: Version, read: R) -> Self {
        let ahead = Some(tokio::spawn(read(after)));
        Self { read, ahead }
    }

    /// The next page; empty at the stream's end, and after an error.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn next(&mut self) -> Result<Vec<Recorded>, E> {
        let Some(ahead) = self.ahead.take() else { return Ok(Vec::new()) };
        let page = match ahead.await {
            Ok(page) => page?,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // The runtime ends, and whoever asks with it.
            Err(_) => std::future::pending().await,
        };
        self.ahead = page.last().map(|last| tokio::spawn((self.read)(last.version)));
        Ok(page)
    }
}

impl<R, E> Drop for Pages<R, E> {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::{request, stream};
    use crate::store::{EventStore as _, Expected, Memory, ReadError};

    #[tokio::test]
    async fn pages_are_the_stream_from_where_it_was_left_to_its_end() {
        let store = Arc::new(Memory::new());
        let made = request(&stream("a"), Expected::NONE, &["{}"; 10]);
        store.append(made).await.expect("appended");
        let mut pages = Pages::after(Version(3), |after| {
            let store = Arc::clone(&store);
            async move { store.read_stream(&stream("a"), after, 4).await }
        });
        let mut found = Vec::new();
        loop {
            let page = pages.next().await.expect("read");
            if page.is_empty() {
                break;
            }
            found.push(page.iter().map(|event| event.version.0).collect::<Vec<_>>());
        }
        assert_eq!(found, [vec![4, 5, 6, 7], vec![8, 9, 10]]);
    }

    #[tokio::test]
    async fn an_error_is_told_once_and_ends_the_pages() {
        let lost = || ReadError::Unavailable { reason: "gone".into() };
        let mut pages = Pages::after(Version(0), |_| async move { Err(lost()) });
        assert_eq!(pages.next().await, Err(lost()));
        assert_eq!(pages.next().await, Ok(Vec::new()));
    }
}
