//! How a runner that cannot be handed the platform's Unix socket comes to its first link: over TCP, and with a token
//! that it finds in a file.

/// What a gateway's address begins with that is no path of a Unix socket: `tcp:10.81.0.2:7400`.
pub const TCP: &str = "tcp:";
/// The directory of the token's file, beside the sandbox's socket on the host.
pub const DIRECTORY: &str = "boot";
/// The token's file in its directory.
pub const TOKEN: &str = "token";
/// Where a runner sees that directory.
pub const SEEN: &str = "/run/hypercode";
/// How long a token is good, in milliseconds, if it is not used.
pub const TOKEN_MS: u64 = 60_000;
