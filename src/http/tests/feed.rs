//! The live feed.

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::Value;

use super::double::Server;
use crate::http::Envelope;

/// The next events of a feed, as id and data.
struct Reader {
    stream: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Reader {
    async fn open(server: &Server, query: &str, last: Option<u64>) -> Self {
        let mut request = server.request(Method::GET, &format!("/v1/events{query}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { stream: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The next block, without comments; `None` at the end of the feed.
    async fn next(&mut self) -> Option<(u64, Option<Value>)> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let found = field("id:").map(|id| id.parse().unwrap());
                let data = field("data:").map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                match found {
                    Some(id) => return Some((id, data)),
                    None => continue,
                }
            }
            self.text += std::str::from_utf8(&self.stream.next().await?.unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_misses_and_repeats_nothing() {
    let server = Server::start().await;
    for n in 0..3 {
        server.note(&format!("n{n}")).await;
    }
    let mut reader = Reader::open(&server, "?after=0", None).await;
    for position in 1..=2 {
        let (id, data) = reader.next().await.unwrap();
        assert_eq!((id, data.unwrap()["position"].as_u64()), (position, Some(position)));
    }
    drop(reader);
    // `Last-Event-ID` wins over the query that the client began with.
    let mut reader = Reader::open(&server, "?after=0", Some(2)).await;
    assert_eq!(reader.next().await.unwrap().0, 3);
    server.note("later").await;
    assert_eq!(reader.next().await.unwrap().0, 4);
}

#[tokio::test]
async fn what_is_not_wanted_still_moves_the_reader_on() {
    let server = Server::start().await;
    server.assemble().await;
    for n in 0..3 {
        server.note(&format!("n{n}")).await;
    }
    let mut reader = Reader::open(&server, "?after=0&entity=crew", None).await;
    let (id, data) = reader.next().await.unwrap();
    assert_eq!((id, data.unwrap()["kind"].as_str()), (1, Some("crew_assembly_started")));
    // The rest is of another entity: an id without data says how far the reader has come.
    assert_eq!(reader.next().await.unwrap(), (4, None));

    let mut of_crew = Reader::open(&server, "?after=0&crew=pair&until=4", None).await;
    assert_eq!(of_crew.next().await.unwrap().0, 1);
    assert_eq!(of_crew.next().await, Some((4, None)), "it was looked at to the end");
    assert_eq!(of_crew.next().await, None);
}

#[tokio::test]
async fn a_feed_has_everything_that_the_chain_is_made_of() {
    use events::chain::Verifier;
    use events::store::Head;

    let server = Server::start().await;
    server.assemble().await;
    server.note("n").await;
    let log = server.get("/v1/log").await;
    let mut reader = Reader::open(&server, "?after=0&until=2", None).await;
    let mut verifier = Verifier::after(Head::EMPTY);
    while let Some((_, data)) = reader.next().await {
        let text = data.unwrap().to_string();
        let envelope: Envelope = serde_json::from_str(&text).unwrap();
        verifier.check(&events::Recorded::try_from(&envelope).unwrap()).unwrap();
    }
    assert_eq!(log["position"], verifier.head().position.0);
    assert_eq!(log["hash"], verifier.head().hash.to_string());
}

#[tokio::test]
async fn a_feed_ends_when_the_platform_stops() {
    let server = Server::start().await;
    let mut reader = Reader::open(&server, "", None).await;
    server.stop.cancel();
    assert_eq!(reader.next().await, None);
}
