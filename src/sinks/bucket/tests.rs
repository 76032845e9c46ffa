use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use events::Digest;
use events::audit::{Checkpoint, Signer};

use super::*;

/// A store as object stores are: it takes an object once, from who shows the token.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Bytes>,
    /// Answers that are lost on the way.
    loses: usize,
}

async fn serve(
    State(store): State<Store>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Bytes) {
    if headers.get("authorization").is_none_or(|token| token != "Bearer t0ken") {
        return (StatusCode::FORBIDDEN, "who are you?".into());
    }
    assert_eq!(uri.query(), Some("sv=1"));
    let mut kept = store.0.lock().unwrap();
    let found = kept.objects.get(uri.path()).cloned();
    if method == Method::GET {
        return found.map_or((StatusCode::NOT_FOUND, Bytes::new()), |found| (StatusCode::OK, found));
    }
    assert_eq!(headers["if-none-match"], "*");
    if found.is_some() {
        return (StatusCode::PRECONDITION_FAILED, Bytes::new());
    }
    kept.objects.insert(uri.path().to_owned(), body);
    if kept.loses > 0 {
        kept.loses -= 1;
        return (StatusCode::BAD_GATEWAY, "no answer\nfrom behind".into());
    }
    (StatusCode::CREATED, Bytes::new())
}

struct Scene {
    store: Store,
    bucket: Bucket,
    headers: PathBuf,
    signer: Signer,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let (store, directory) = (Store::default(), tempfile::tempdir().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a bucket/?sv=1", listener.local_addr().unwrap()).replace(' ', "%20");
        // As proxies may, it ends the connection with every answer.
        let close = map_response(async |answer: Response| ([(CONNECTION, "close")], answer));
        let router = Router::new().fallback(serve).layer(close).with_state(store.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let headers = directory.path().join("headers");
        std::fs::write(&headers, "Authorization: Bearer t0ken\n\nX-Lock: GOVERNANCE\n").unwrap();
        std::fs::set_permissions(&headers, std::fs::Permissions::from_mode(0o600)).unwrap();
        let bucket = Bucket::new(&url, Some(headers.clone())).unwrap();
        Self { store, bucket, headers, signer: Signer::generate("hypercode/1"), _directory: directory }
    }

    fn note(&self, size: u64, root: &[u8]) -> Note {
        self.signer.sign(&Checkpoint { origin: "hypercode/1".into(), size, root: Digest::of(root) })
    }
}

#[tokio::test]
async fn an_object_is_put_once_and_never_replaced() {
    let scene = Scene::start().await;
    let note = scene.note(7, b"a");
    scene.bucket.put(&note).await.unwrap();
    scene.bucket.put(&note).await.expect("the same again is no harm");
    let fork = scene.bucket.put(&scene.note(7, b"b")).await.unwrap_err();
    assert!(fork.reason.contains("another checkpoint of size 7"), "{fork}");
    let kept = scene.store.0.lock().unwrap().objects.clone();
    let place = "/a%20bucket/hypercode/1/00000000000000000007.checkpoint".to_owned();
    assert_eq!(kept, [(place, Bytes::copy_from_slice(note.as_str().as_bytes()))].into());
    assert!(!scene.bucket.name().contains("sv="), "a signature is not shown: {}", scene.bucket.name());
}

#[tokio::test]
async fn what_goes_wrong_is_told_and_tried_again_without_harm() {
    let scene = Scene::start().await;
    scene.store.0.lock().unwrap().loses = 1;
    let lost = scene.bucket.put(&scene.note(1, b"a")).await.unwrap_err();
    assert!(lost.reason.contains("502") && lost.reason.contains("no answer from behind"), "{lost}");
    scene.bucket.put(&scene.note(1, b"a")).await.expect("it was kept the first time");

    std::fs::write(&scene.headers, "Authorization: Bearer other").unwrap();
    let refused = scene.bucket.put(&scene.note(2, b"a")).await.unwrap_err();
    assert!(refused.reason.contains("403") && refused.reason.contains("who are you?"), "{refused}");
    std::fs::write(&scene.headers, "nonsense").unwrap();
    let refused = scene.bucket.put(&scene.note(2, b"a")).await.unwrap_err();
    assert!(refused.reason.contains("line 1"), "{refused}");
    std::fs::set_permissions(&scene.headers, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = scene.bucket.put(&scene.note(2, b"a")).await.unwrap_err();
    assert!(refused.reason.contains("chmod 600"), "{refused}");

    let nobody = Bucket::new("http://127.0.0.1:1/x", None).unwrap();
    assert!(nobody.put(&scene.note(1, b"a")).await.unwrap_err().reason.contains("connect"));
    for bad in ["", "ftp://host/x", "/path", "http://user:pass@host/x"] {
        assert!(Bucket::new(bad, None).is_err(), "{bad}");
    }
}
