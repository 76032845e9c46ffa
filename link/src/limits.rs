//! Hard limits of the protocol. A peer may be given tighter ones; nobody may be given wider ones.

/// Longest line of the handler protocol on stdio, without its newline.
pub const LINE_BYTES_MAX: usize = 240 * 1024;
/// Longest link frame. Wider than a line, so that every line fits a frame with its envelope.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of arrays and objects in anything parsed.
pub const DEPTH_MAX: usize = 64;
/// Levels of arrays and objects within what a person puts in: less than a frame has, so that one has room around it.
pub const CONTENT_DEPTH_MAX: usize = 48;
/// Largest artifact.
pub const ARTIFACT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest `raw` of a part, decoded.
pub const RAW_BYTES_MAX: usize = 64 * 1024;
/// Largest checkpoint and largest state value, as JSON text.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Shortest secret: a shorter value cannot be masked in what a handler writes without masking half of it.
pub const SECRET_BYTES_MIN: usize = 6;
/// Longest secret.
pub const SECRET_BYTES_MAX: usize = 32 * 1024;
/// Longest secrets of one agent together: they go in one frame with the rest of what it is assigned.
pub const SECRETS_BYTES_MAX: usize = 128 * 1024;
/// Longest opaque id, in characters.
pub const ID_CHARS_MAX: usize = 64;
/// Longest idempotency key, state key or input key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Longest tail of a handler's log in a frame.
pub const LOG_TAIL_BYTES_MAX: usize = 4 * 1024;
/// Calls of one sandbox that may be in flight.
pub const CALLS_IN_FLIGHT_MAX: usize = 64;
/// Connections of one sandbox to the doors.
pub const DOOR_CONNECTIONS_MAX: usize = 16;
/// Notes of one sandbox in a second.
pub const NOTES_PER_SECOND_MAX: u32 = 200;
/// Tasks that one `task/await` may name.
pub const AWAIT_TASKS_MAX: usize = 1000;
/// Parts of one content.
pub const PARTS_MAX: usize = 1000;
/// Longest busy lease: one hour.
pub const BUSY_MS_MAX: u64 = 60 * 60 * 1000;
/// Longest wait of one `next`.
pub const NEXT_WAIT_MS_MAX: u64 = 60 * 1000;
/// How soon `hello` must follow the opening of a link.
pub const HELLO_MS_MAX: u64 = 5 * 1000;
/// How long a handler may take to answer `ping` before it counts as hung.
pub const PING_MS_MAX: u64 = 10 * 1000;
/// How long a delivered message may stay without an answer before it is delivered again.
pub const DELIVERY_ACK_MS_MAX: u64 = 30 * 1000;
/// Deliveries of one message before it is dead-lettered.
pub const DELIVERIES_MAX: u32 = 5;
/// Given where the profile sets no `startTimeout`.
pub const START_TIMEOUT_MS: u64 = 60 * 1000;
/// Given where nobody sets a grace: how long a cancelled or stopped handler has before it is killed.
pub const GRACE_MS: u64 = 10 * 1000;
/// Given where nobody sets an orphan grace: how long a runner works on without its gateway.
pub const ORPHAN_GRACE_MS: u64 = 10 * 60 * 1000;
/// First pause before a lost link is tried again.
pub const RECONNECT_MS_MIN: u64 = 50;
/// Longest pause before a lost link is tried again.
pub const RECONNECT_MS_MAX: u64 = 2 * 1000;
/// Tasks a handler may be given at once.
pub const CONCURRENCY_MAX: u32 = 256;
/// The name of the handler's log in its work directory: the runner writes it, the platform shows its end.
pub const HANDLER_LOG: &str = "handler.log";
