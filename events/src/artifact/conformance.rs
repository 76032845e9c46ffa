//! One suite that every artifact store passes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{ARTIFACT_BYTES_MAX, Artifact, ArtifactError, ArtifactStore};
use crate::id::Digest;

/// Expands to one test per law, over the empty store that the expression makes.
#[macro_export]
macro_rules! artifact_store_conformance {
    ($store:expr) => {
        $crate::artifact_store_conformance! { $store;
            what_is_put_is_read_by_its_digest,
            putting_again_changes_nothing,
            all_that_is_kept_is_listed_once_in_order,
            what_was_not_put_is_not_there,
            what_was_deleted_is_gone_until_it_is_put_again,
            sources_are_read_to_their_end,
            too_large_is_refused_and_leaves_nothing,
            an_interrupted_source_leaves_nothing,
        }
    };
    ($store:expr; $($law:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $law() {
                $crate::artifact::conformance::$law($store.await).await;
            }
        )+
    };
}

/// Bytes come back whole: none, few, every value.
pub async fn what_is_put_is_read_by_its_digest(store: impl ArtifactStore) {
    let every: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    for bytes in [Bytes::new(), Bytes::from_static(b"few"), every.into()] {
        let artifact = store.put(bytes.clone()).await.expect("it is kept");
        assert_eq!(artifact, Artifact { digest: Digest::of(&bytes), size: bytes.len() as u64 });
        assert_eq!(store.get(artifact.digest).await, Ok(Some(bytes)));
        assert_eq!(store.size(artifact.digest).await, Ok(Some(artifact.size)));
        assert_eq!(store.has(artifact.digest).await, Ok(true));
    }
}

/// The same bytes may be put again, at the same time too.
pub async fn putting_again_changes_nothing(store: impl ArtifactStore) {
    let store = Arc::new(store);
    let puts = (0..8).map(|_| {
        let store = Arc::clone(&store);
        async move { store.put("same".into()).await.expect("it is kept") }
    });
    let artifacts = tokio::task::JoinSet::from_iter(puts).join_all().await;
    assert!(artifacts.iter().all(|artifact| *artifact == artifacts[0]));
    assert_eq!(store.get(artifacts[0].digest).await, Ok(Some("same".into())));
}

/// However small the pages are.
pub async fn all_that_is_kept_is_listed_once_in_order(store: impl ArtifactStore) {
    assert_eq!(store.after(None, 10).await, Ok(Vec::new()));
    let mut kept = Vec::new();
    for number in 0..40 {
        kept.push(store.put(format!("{number}").into()).await.expect("it is kept").digest);
    }
    kept.sort_unstable();
    for limit in [1, 7, 100] {
        let mut listed: Vec<Digest> = Vec::new();
        loop {
            let page = store.after(listed.last().copied(), limit).await.expect("it is listed");
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            listed.extend(page);
        }
        assert_eq!(listed, kept, "in pages of {limit}");
    }
}

/// Deleting takes one artifact, once.
pub async fn what_was_deleted_is_gone_until_it_is_put_again(store: impl ArtifactStore) {
    let (gone, kept) = (store.put("gone".into()).await, store.put("kept".into()).await);
    let (gone, kept) = (gone.expect("it is kept").digest, kept.expect("it is kept").digest);
    assert_eq!(store.delete(gone).await, Ok(true));
    assert_eq!(store.delete(gone).await, Ok(false));
    assert_eq!((store.get(gone).await, store.has(gone).await), (Ok(None), Ok(false)));
    assert_eq!(store.get(kept).await, Ok(Some("kept".into())));
    store.put("gone".into()).await.expect("it is kept");
    assert_eq!(store.get(gone).await, Ok(Some("gone".into())));
}

/// An unknown digest is no error.
pub async fn what_was_not_put_is_not_there(store: impl ArtifactStore) {
    let digest = Digest::of(b"never");
    assert_eq!(store.get(digest).await, Ok(None));
    assert_eq!(store.size(digest).await, Ok(None));
    assert_eq!(store.has(digest).await, Ok(false));
}

/// A source may give its bytes in any pieces.
pub async fn sources_are_read_to_their_end(store: impl ArtifactStore) {
    let mut source = (&b"one, "[..]).chain(&b""[..]).chain(&b"two"[..]);
    let artifact = store.put_from(&mut source).await.expect("it is kept");
    assert_eq!(store.get(artifact.digest).await, Ok(Some("one, two".into())));
}

/// The limit itself is kept, one byte more is not.
pub async fn too_large_is_refused_and_leaves_nothing(store: impl ArtifactStore) {
    let zeros = |size| tokio::io::repeat(0).take(size);
    let kept = store.put_from(&mut zeros(ARTIFACT_BYTES_MAX)).await.expect("the limit is kept");
    assert_eq!(kept.size, ARTIFACT_BYTES_MAX);
    assert_eq!(store.put_from(&mut zeros(ARTIFACT_BYTES_MAX + 1)).await, Err(ArtifactError::TooLarge));
}

/// What could not be read to its end is not kept.
pub async fn an_interrupted_source_leaves_nothing(store: impl ArtifactStore) {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Err(io::Error::other("the caller went away")))
        }
    }
    let put = store.put_from(&mut (&b"half"[..]).chain(Broken)).await;
    assert!(matches!(put, Err(ArtifactError::Interrupted { reason }) if reason.contains("went away")));
    assert_eq!(store.has(Digest::of(b"half")).await, Ok(false));
}
