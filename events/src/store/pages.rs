//! A stream read page by page, the next ones while the caller works on the one before.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::JoinHandle;

use crate::event::Recorded;
use crate::id::Version;

/// Pages of a long stream that are read at once.
const AHEAD_PAGES: usize = 2;

/// The pages of a stream, some of them read ahead.
pub struct Pages<R, E> {
    read: R,
    page_events: usize,
    /// What is being read, each page with the version that it comes after.
    ahead: VecDeque<(Version, Reading<E>)>,
}

/// A page that is being read.
type Reading<E> = JoinHandle<Result<Vec<Recorded>, E>>;

impl<R, F, E> Pages<R, E>
where
    R: Fn(Version) -> F,
    F: Future<Output = Result<Vec<Recorded>, E>> + Send + 'static,
    E: Send + 'static,
{
    /// The pages that `read` gives of what comes after a version, beginning after `after`; a page has `page_events` at
    /// most.
    pub fn after(after: Version, page_events: usize, read: R) -> Self {
        let mut pages = Self { read, page_events, ahead: VecDeque::new() };
        pages.begin(after);
        pages
    }

    /// The next page; empty at the stream's end, and after an error.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn next(&mut self) -> Result<Vec<Recorded>, E> {
        let Some((_, ahead)) = self.ahead.pop_front() else { return Ok(Vec::new()) };
        let page = match ahead.await {
            Ok(page) => page.inspect_err(|_| abandon(&mut self.ahead))?,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // The runtime ends, and whoever asks with it.
            Err(_) => std::future::pending().await,
        };
        self.go_on(&page);
        Ok(page)
    }

    /// Has read what comes after `page`. Versions have no gaps: a full page lets it be known where the page after the
    /// next begins, so that both can be read at once. A stream of one page costs no more than that for it.
    fn go_on(&mut self, page: &[Recorded]) {
        let last = page.last().map(|event| event.version);
        if self.ahead.front().map(|(after, _)| *after) != last {
            abandon(&mut self.ahead);
        }
        let wanted = match page.len() {
            0 => 0,
            events if events < self.page_events => 1,
            _ => AHEAD_PAGES,
        };
        let newest = self.ahead.back().map(|(after, _)| self.behind(*after));
        let mut next = newest.or(last).unwrap_or_default();
        while self.ahead.len() < wanted {
            self.begin(next);
            next = self.behind(next);
        }
    }

    /// The last version of a full page after `after`.
    fn behind(&self, after: Version) -> Version {
        Version(after.0 + self.page_events as u64)
    }

    fn begin(&mut self, after: Version) {
        self.ahead.push_back((after, tokio::spawn((self.read)(after))));
    }
}

fn abandon<T>(ahead: &mut VecDeque<(Version, JoinHandle<T>)>) {
    for (_, reading) in ahead.drain(..) {
        reading.abort();
    }
}

impl<R, E> Drop for Pages<R, E> {
    fn drop(&mut self) {
        abandon(&mut self.ahead);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::conformance::{request, stream};
    use crate::store::{EventStore as _, Expected, Memory, ReadError};

    async fn versions(
        pages_of: impl Fn(Version) -> usize + Send + Copy + 'static,
        page_events: usize,
    ) -> Vec<Vec<u64>> {
        let store = Arc::new(Memory::new());
        let made = request(&stream("a"), Expected::NONE, &["{}"; 20]);
        store.append(made).await.expect("appended");
        let mut pages = Pages::after(Version(3), page_events, |after| {
            let store = Arc::clone(&store);
            async move { store.read_stream(&stream("a"), after, pages_of(after)).await }
        });
        let mut found = Vec::new();
        loop {
            let page = pages.next().await.expect("read");
            if page.is_empty() {
                break;
            }
            found.push(page.iter().map(|event| event.version.0).collect::<Vec<_>>());
        }
        found
    }

    #[tokio::test]
    async fn pages_are_the_stream_from_where_it_was_left_to_its_end() {
        let all: Vec<u64> = (4..=20).collect();
        for page_events in [1, 4, 16, 17, 100] {
            let expected: Vec<Vec<u64>> = all.chunks(page_events).map(<[u64]>::to_vec).collect();
            assert_eq!(versions(move |_| page_events, page_events).await, expected);
        }
    }

    /// What was read beyond a page that is not full is not used.
    #[tokio::test]
    async fn a_store_may_give_less_than_a_page() {
        let most = |after: Version| if after.0 == 7 { 3 } else { 4 };
        let expected =
            [vec![4, 5, 6, 7], vec![8, 9, 10], vec![11, 12, 13, 14], vec![15, 16, 17, 18], vec![19, 20]];
        assert_eq!(versions(most, 4).await, expected);
    }

    #[tokio::test]
    async fn an_error_is_told_once_and_ends_the_pages() {
        let lost = || ReadError::Unavailable { reason: "gone".into() };
        let mut pages = Pages::after(Version(0), 4, |_| async move { Err(lost()) });
        assert_eq!(pages.next().await, Err(lost()));
        assert_eq!(pages.next().await, Ok(Vec::new()));
    }
}
