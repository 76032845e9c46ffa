//! Runners that come over a network: their first link takes a token that lies where only their sandbox sees it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use events::SandboxId;
use events::domain::platform::{Event, Tampered, Tampering};
use serde_json::json;

use crate::support::{PATIENCE, Runner, World, assign, peer};

/// The token that lies beside the socket, once there is one, and not this one.
async fn token(socket: &Path, used: Option<&str>) -> String {
    let file = socket.with_file_name("boot").join("token");
    let there = async {
        loop {
            match std::fs::read_to_string(&file) {
                Ok(token) if Some(token.as_str()) != used => return token,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("no token came")
}

/// What a link with this token is closed with.
async fn refused(socket: &Path, token: Option<&str>) -> Option<u16> {
    let mut stranger = Runner::connect(socket, token).await;
    stranger.send(json!({"t": "hello", "v": [1], "runner": "x"})).await;
    stranger.closed().await
}

async fn linked(socket: &Path, token: &str) -> Runner {
    let mut runner = Runner::connect(socket, Some(token)).await;
    runner.hello().await;
    runner
}

fn over_a_network() -> World {
    World::with(|options| options.bootstrap = true)
}

async fn reused(world: &World) -> Tampered {
    let told = world.log(1, |event| match event {
        Event::Tampered(tampered) => Some(tampered),
        _ => None,
    });
    let mut told = told.await;
    assert_eq!((told.len(), told[0].what), (1, Tampering::ReusedToken));
    told.remove(0)
}

#[tokio::test]
async fn the_first_link_takes_a_token_and_the_next_another() {
    let world = over_a_network();
    let who = peer("m", 0, 1);
    let socket = world.gateway.open(&who.sandbox).await.unwrap();
    for wrong in [None, Some(""), Some("guessed")] {
        assert_eq!(refused(&socket, wrong).await, Some(4003), "{wrong:?}");
    }
    let first = token(&socket, None).await;
    let file = socket.with_file_name("boot").join("token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
    let runner = linked(&socket, &first).await;
    let gone = async {
        while file.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("no token lies there while there is a link");

    drop(runner);
    let second = token(&socket, Some(&first)).await;
    let mut runner = linked(&socket, &second).await;
    world.gateway.bind_peer(&who.sandbox, who.clone()).unwrap();
    world.gateway.assign(&who.sandbox, assign(&who)).await.unwrap();
    let assigned = runner.expect("assign").await;
    runner.token = assigned["token"].as_str().map(str::to_owned);
    runner.reconnect().await.quiet().await;
    assert!(!file.exists(), "from now on the assignment's token counts");
    let told = world.tampered(1).await;
    assert!(
        told.iter().all(|told| told.what == Tampering::ForeignToken),
        "only guesses were wrong: {told:?}"
    );
}

/// T17: whoever shows a token that was used ends the sandbox whose it is.
#[tokio::test]
async fn t17_a_token_that_is_shown_again_ends_its_sandbox_and_is_told_of() {
    let world = over_a_network();
    let sandbox = peer("m", 0, 1).sandbox;
    let socket = world.gateway.open(&sandbox).await.unwrap();
    let first = token(&socket, None).await;
    let mut runner = linked(&socket, &first).await;
    assert_eq!(refused(&socket, Some(&first)).await, Some(4005));
    assert_eq!(runner.closed().await, Some(4005));
    assert_eq!(reused(&world).await.sandbox, sandbox);
    let next = token(&socket, Some(&first)).await;
    assert_eq!(refused(&socket, Some(&next)).await, Some(4005), "nobody speaks for it any more");
}

/// T17: the same of a token that another sandbox shows; neither lives on.
#[tokio::test]
async fn t17_a_token_in_another_sandboxs_place_ends_both() {
    let world = over_a_network();
    let [mine, theirs]: [SandboxId; 2] = [peer("m", 0, 1).sandbox, peer("m", 1, 1).sandbox];
    let (my, their) = (world.gateway.open(&mine).await.unwrap(), world.gateway.open(&theirs).await.unwrap());
    let stolen = token(&their, None).await;
    let mut runner = linked(&my, &token(&my, None).await).await;
    assert_eq!(refused(&my, Some(&stolen)).await, Some(4005));
    assert_eq!(runner.closed().await, Some(4005));
    assert_eq!(refused(&their, Some(&stolen)).await, Some(4005));
    let told = reused(&world).await;
    assert!(told.sandbox == mine && told.detail.contains(theirs.as_str()), "{told:?}");
}
