use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use events::audit::witness::double;
use events::audit::{Options, Signer, Tailer};
use events::store::{AppendRequest, Expected, Memory, conformance};
use events::{Digest, EventStore};

use super::*;

/// A witness behind HTTP, and what it was asked.
#[derive(Clone)]
struct Served(Arc<Mutex<Behind>>);

struct Behind {
    witness: double::Witness,
    asked: Vec<String>,
    /// Whose cosignatures it gives out instead of its own.
    impostor: Option<double::Witness>,
}

async fn serve(State(served): State<Served>, method: Method, uri: Uri, body: String) -> Response {
    let mut state = served.0.lock().unwrap();
    assert_eq!((method, uri.path()), (Method::POST, "/w/add-checkpoint"));
    let (status, mut answer) = state.witness.add_checkpoint(&body, 1_795_000_000);
    if let (200, Some(impostor)) = (status, &state.impostor) {
        let note = Note::parse(body.split_once("\n\n").unwrap().1).unwrap();
        answer = impostor.cosign(&note, 1_795_000_000);
    }
    state.asked.push(format!("{} {status}", body.lines().next().unwrap()));
    let kind = if status == 409 { SIZE } else { "text/plain" };
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, kind)], answer).into_response()
}

struct Scene {
    served: Served,
    url: String,
    key: WitnessKey,
    store: Arc<Memory>,
    signer: Signer,
    directory: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let witness = double::Witness::new("witness.example/w1", [7; 32]);
        let key = WitnessKey::parse(&witness.public()).unwrap();
        let served = Served(Arc::new(Mutex::new(Behind { witness, asked: Vec::new(), impostor: None })));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/w/", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(served.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let directory = tempfile::tempdir().unwrap();
        let signer = Signer::generate("hypercode/1");
        Self { served, url, key, store: Arc::new(Memory::new()), signer, directory }
    }

    fn cosigned(&self) -> PathBuf {
        self.directory.path().join("cosigned")
    }

    /// The log, with its checkpoints so far.
    async fn tailer(&self) -> Tailer {
        let ledger = Ledger::open(self.directory.path()).await.unwrap();
        let store = Arc::clone(&self.store) as Arc<dyn EventStore>;
        Tailer::start(store, ledger, self.signer.clone(), Vec::new(), Options::default()).await.unwrap()
    }

    async fn grow(&self, events: usize) {
        let request = conformance::request(&conformance::stream("s"), Expected::Any, &vec!["1"; events]);
        self.store.append(AppendRequest { epoch: None, ..request }).await.unwrap();
    }

    /// The platform's end, as it is after a start.
    fn sink(&self, tailer: &Tailer) -> Witness {
        Witness::new(&self.url, self.key.clone(), tailer.ledger().clone(), self.cosigned()).unwrap()
    }

    fn kept(&self) -> Vec<Note> {
        let text = std::fs::read_to_string(self.cosigned()).unwrap_or_default();
        notes(&text).into_iter().map(Result::unwrap).collect()
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.served.0.lock().unwrap().asked)
    }
}

#[tokio::test]
async fn every_checkpoint_is_proven_to_continue_the_one_before_and_kept_cosigned() {
    let scene = Scene::start().await;
    let tailer = scene.tailer().await;
    let sink = scene.sink(&tailer);
    let mut sizes = Vec::new();
    for events in [3, 1, 600, 0] {
        if events > 0 {
            scene.grow(events).await;
        }
        let note = tailer.cut().await.unwrap();
        sink.put(&note).await.unwrap();
        sizes.push(note.checkpoint().size);
    }
    assert_eq!(sizes, [3, 4, 604, 604]);
    assert_eq!(scene.asked(), ["old 0 200", "old 3 200", "old 4 200", "old 604 200"]);
    let kept = scene.kept();
    assert_eq!(kept.iter().map(|note| note.checkpoint().size).collect::<Vec<_>>(), [3, 4, 604]);
    assert!(kept.iter().all(|note| scene.key.check(note) && scene.signer.public().check(note)));
    tailer.close().await;
}

#[tokio::test]
async fn a_witness_that_has_seen_more_is_taken_at_its_word() {
    let scene = Scene::start().await;
    let tailer = scene.tailer().await;
    for events in [5, 300] {
        scene.grow(events).await;
        scene.sink(&tailer).put(&tailer.cut().await.unwrap()).await.unwrap();
    }
    // The file is lost, so that nothing is known here of what the witness has seen.
    std::fs::remove_file(scene.cosigned()).unwrap();
    scene.grow(1).await;
    scene.asked();
    let note = tailer.cut().await.unwrap();
    scene.sink(&tailer).put(&note).await.unwrap();
    assert_eq!(scene.asked(), ["old 0 409", "old 305 200"]);
    assert_eq!(scene.kept().len(), 1);
    // A restart goes on where the file ends.
    scene.grow(1).await;
    scene.sink(&tailer).put(&tailer.cut().await.unwrap()).await.unwrap();
    assert_eq!(scene.asked(), ["old 306 200"]);
    tailer.close().await;
}

#[tokio::test]
async fn another_history_is_not_cosigned() {
    let scene = Scene::start().await;
    let tailer = scene.tailer().await;
    scene.grow(5).await;
    scene.sink(&tailer).put(&tailer.cut().await.unwrap()).await.unwrap();
    let sign = |size, root: &[u8]| {
        let checkpoint =
            events::audit::Checkpoint { origin: "hypercode/1".into(), size, root: Digest::of(root) };
        scene.signer.sign(&checkpoint)
    };
    let same_size = scene.sink(&tailer).put(&sign(5, b"other")).await.unwrap_err();
    assert!(same_size.reason.contains("another checkpoint"), "{same_size}");
    let shorter = scene.sink(&tailer).put(&sign(4, b"other")).await.unwrap_err();
    assert!(shorter.reason.contains("it has seen 5 events"), "{shorter}");
    tailer.close().await;
    // A log that was written anew proves only itself.
    let other = tempfile::tempdir().unwrap();
    let rewritten = Scene {
        store: Arc::new(Memory::new()),
        directory: other,
        signer: scene.signer.clone(),
        served: scene.served.clone(),
        url: scene.url.clone(),
        key: scene.key.clone(),
    };
    rewritten.grow(7).await;
    let tailer = rewritten.tailer().await;
    let refused = rewritten.sink(&tailer).put(&tailer.cut().await.unwrap()).await.unwrap_err();
    assert!(refused.reason.contains("422") && refused.reason.contains("inconsistent"), "{refused}");
    assert_eq!((rewritten.kept(), scene.kept().len()), (Vec::new(), 1));
    tailer.close().await;
}

#[tokio::test]
async fn a_wrong_cosignature_is_not_kept() {
    let scene = Scene::start().await;
    let tailer = scene.tailer().await;
    scene.grow(5).await;
    let note = tailer.cut().await.unwrap();
    for impostor in [double::Witness::new("witness.example/w1", [8; 32]), double::Witness::new("w2", [7; 32])]
    {
        scene.served.0.lock().unwrap().impostor = Some(impostor);
        let refused = scene.sink(&tailer).put(&note).await.unwrap_err();
        assert!(refused.reason.contains("no cosignature"), "{refused}");
    }
    assert_eq!(scene.kept(), []);
    scene.served.0.lock().unwrap().impostor = None;
    scene.sink(&tailer).put(&note).await.unwrap();
    assert_eq!(scene.kept().len(), 1);
    tailer.close().await;
}
