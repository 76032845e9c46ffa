//! What the gateway is set up with, and every limit that it keeps.

use std::path::PathBuf;

/// How the gateway is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the sandboxes' sockets; made with mode 0700. Short: a socket's path has 108 bytes at most.
    pub run_dir: PathBuf,
    /// The user that runners run as, to whom the sockets are given; `None` = whoever runs the platform.
    pub peer_uid: Option<u32>,
    /// Whether runners come over a network: each must then show a token for its first link, which is in a file beside its
    /// socket that no other sandbox sees.
    pub bootstrap: bool,
    /// The limits.
    pub limits: Limits,
}

impl Options {
    /// The defaults, with the sockets under `run_dir`.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Self { run_dir: run_dir.into(), peer_uid: None, bootstrap: false, limits: Limits::default() }
    }
}

/// Every bound of the gateway. The protocol's own are in [`link::limits`].
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections of one sandbox, of every kind.
    pub connections_max: usize,
    /// How long a request's head may take to arrive, and a connection may idle, in milliseconds.
    pub http_head_ms: u64,
    /// How long a peer may take to read one frame before its link counts as dead, in milliseconds.
    pub write_ms: u64,
    /// How long the old link of a sandbox may take to end when a new one comes, in milliseconds.
    pub takeover_ms: u64,
    /// Without a frame for so many heartbeats a link counts as dead when a new one comes.
    pub takeover_missed_heartbeats: u32,
    /// Frames that wait for the peer to read, beside tasks and messages; more end the link.
    pub frames_queued_max: usize,
    /// Tasks that wait for credit in one sandbox.
    pub tasks_queued_max: usize,
    /// Notes that wait for the platform; more are thrown away.
    pub notes_queued_max: usize,
    /// Calls of one sandbox in flight.
    pub calls_in_flight_max: usize,
    /// Answers kept for calls that may come again after a lost link, in number …
    pub answers_kept_max: usize,
    /// … and in bytes. A call whose answer is gone is judged again and gets its first outcome.
    pub answers_kept_bytes_max: usize,
    /// Notes of one sandbox in a second; more are thrown away.
    pub notes_per_second_max: u32,
    /// Frames in a second that are refused, thrown away or mean nothing; more end the link.
    pub idle_frames_per_second_max: u32,
    /// Messages that one agent may try to send in a second, allowed or not …
    pub sends_per_second_max: u32,
    /// … and at once.
    pub sends_burst: u32,
    /// Messages that wait for one agent, or for one member without a ready agent.
    pub messages_pending_max: usize,
    /// Messages of one sender that one receiver may have in hand at once. A message that must be delivered again holds
    /// back the later ones of its sender.
    pub messages_in_hand_per_sender_max: usize,
    /// Deliveries of one message before it is dead-lettered.
    pub deliveries_max: u32,
    /// How long a delivered message may stay without an answer before it is delivered again, in milliseconds.
    pub delivery_ack_ms: u64,
    /// How long after a refused delivery the next one comes, doubled each time, in milliseconds.
    pub redelivery_ms: u64,
    /// How long acknowledgements of one receiver are collected into one event, in milliseconds.
    pub acks_window_ms: u64,
    /// Acknowledgements of one receiver that wait to be recorded; at so many nothing more is delivered to it.
    pub acks_unrecorded_max: usize,
    /// Larger bodies and values are kept as artifacts and recorded by digest, in bytes of JSON.
    pub inline_bytes_max: usize,
    /// Denials and refusals of one kind that one agent gets recorded in a second; more are counted into the next.
    pub denials_recorded_per_second: u32,
    /// Frames of one agent in a minute that name their own sender; at so many the platform is told to set it aside.
    pub spoofs_per_minute_max: u32,
    /// Artifact requests of one sandbox at once.
    pub door_requests_max: usize,
    /// Keys of one scope.
    pub state_keys_max: usize,
    /// Scopes whose state is kept in memory.
    pub state_scopes_cached_max: usize,
    /// First pause before an append that the log could not take is tried again, in milliseconds; doubled each time.
    pub append_retry_ms: u64,
    /// How often an append that the log could not take is tried.
    pub append_tries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        use link::limits as wire;
        Self {
            connections_max: 32,
            http_head_ms: 30_000,
            write_ms: 30_000,
            takeover_ms: 250,
            takeover_missed_heartbeats: 3,
            frames_queued_max: 512,
            tasks_queued_max: 64,
            notes_queued_max: 256,
            calls_in_flight_max: wire::CALLS_IN_FLIGHT_MAX,
            answers_kept_max: wire::CALLS_IN_FLIGHT_MAX,
            answers_kept_bytes_max: 2 * 1024 * 1024,
            notes_per_second_max: wire::NOTES_PER_SECOND_MAX,
            idle_frames_per_second_max: 1_000,
            sends_per_second_max: 10_000,
            sends_burst: 10_000,
            messages_pending_max: 1_000,
            messages_in_hand_per_sender_max: 32,
            deliveries_max: wire::DELIVERIES_MAX,
            delivery_ack_ms: wire::DELIVERY_ACK_MS_MAX,
            redelivery_ms: 1_000,
            acks_window_ms: 100,
            acks_unrecorded_max: 10_000,
            inline_bytes_max: 4 * 1024,
            denials_recorded_per_second: 10,
            spoofs_per_minute_max: 5,
            door_requests_max: wire::DOOR_CONNECTIONS_MAX,
            state_keys_max: 10_000,
            state_scopes_cached_max: 1_000,
            append_retry_ms: 20,
            append_tries_max: 8,
        }
    }
}
