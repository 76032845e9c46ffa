//! `relay`: a log that waits is published to JetStream, beside a bare publisher of the same messages.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage, stream};
use events::store::Memory;
use events::{EventStore, Position};
use nats::relay::{Options, Relay, STREAM, State};
use nats::server::Server;
use nats::{Nats, cloud_event, subject};
use tokio_util::sync::CancellationToken;

use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, append, load};

/// Events that wait to be published.
const EVENTS: u64 = 20_000;
/// Events that are appended at once, which is quick: only publishing is measured.
const BATCH: u64 = 500;
/// How often ours and the bare publisher take turns.
const TURNS: usize = 3;
/// Messages that wait for their acknowledgement, on both sides.
const IN_FLIGHT: usize = 1_024;

pub(crate) async fn run(_: &Setup) -> Result<Table> {
    let store = log().await?;
    let mut table = Table::default();
    for (name, lines) in [("as it comes", ""), ("flushed before each acknowledgement", "always")] {
        let (mut bare, mut ours) = (Samples::default(), Samples::default());
        for _ in 0..TURNS {
            bare.push(publish(&server(lines), &store).await?);
            ours.push(relay(&server(lines), &store).await?);
        }
        table.row(Row::new(format!("bare publish, {name}")).samples(&bare).rate(rate(&bare)));
        let row = Row::new(format!("relay, {name}")).samples(&ours).rate(rate(&ours));
        table.row(row.ratio(rate(&ours) / rate(&bare)));
    }
    table.note(format!(
        "{EVENTS} events of about 240 bytes with 17 headers, from a log in memory; n, p50 and p99 are of turns over all"
    ));
    table.note(format!("bare: the same client and the same messages, made beforehand; {IN_FLIGHT} unacknowledged on both sides"));
    table.note(
        "ours beside that: reads the log, makes the messages, has each taken only behind the one before it",
    );
    table.note("one server on this machine; `sync_interval` as it comes (2 min) and `always`; a new stream every turn");
    Ok(table)
}

fn server(sync: &str) -> Server {
    Server::configured(|dir, port| {
        let store = dir.join("store");
        let sync = if sync.is_empty() { String::new() } else { format!("sync_interval: {sync}") };
        format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\"\n{sync} }}\n", store.display())
    })
}

/// Events in a second of the median turn.
fn rate(turns: &Samples) -> f64 {
    EVENTS as f64 / turns.p50().as_secs_f64()
}

async fn log() -> Result<Memory> {
    let store = Memory::new();
    for n in 0..EVENTS / BATCH {
        let mut request = append::request(&load::stream(n), 1);
        let event = request.events[0].clone();
        request.events = vec![event; BATCH as usize];
        store.append(request).await?;
    }
    Ok(store)
}

/// Publishes the messages as quickly as the client can.
async fn publish(server: &Server, store: &Memory) -> Result<Duration> {
    let events = store.read(Position(0), EVENTS as usize).await?;
    let mut messages = Vec::new();
    for event in &events {
        let message = cloud_event::encode(event);
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in message.headers.iter() {
            headers.insert(name, value);
        }
        let publish = PublishMessage::build().headers(headers).payload(message.body);
        messages.push((message.subject.to_string(), publish.message_id(event.event_id.to_string())));
    }
    let context = jetstream::new(async_nats::connect(server.url()).await?);
    let subjects = vec![subject::EVENTS.to_owned()];
    context
        .create_stream(stream::Config { name: STREAM.to_owned(), subjects, ..stream::Config::default() })
        .await?;
    let (start, mut acks) = (Instant::now(), VecDeque::new());
    for (subject, message) in messages {
        acks.push_back(context.send_publish(subject, message).await?);
        if acks.len() == IN_FLIGHT
            && let Some(ack) = acks.pop_front()
        {
            ack.await?;
        }
    }
    for ack in acks {
        ack.await?;
    }
    Ok(start.elapsed())
}

/// Has the relay publish the log.
async fn relay(server: &Server, store: &Memory) -> Result<Duration> {
    let bus = Nats::connect(server.options());
    let options = Options { in_flight_max: IN_FLIGHT, ..Options::default() };
    let relay = Relay::new(Arc::new(store.clone()), bus, options);
    let (mut status, stop) = (relay.status(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    tokio::spawn(relay.run(stop));
    status.wait_for(|status| status.state == State::Following).await?;
    let start = Instant::now();
    status.wait_for(|status| status.position.0 == EVENTS).await?;
    Ok(start.elapsed())
}
