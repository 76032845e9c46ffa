//! What is measured on: without it a number says nothing.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use sqlx::{Connection as _, PgConnection};

use crate::Result;
use crate::samples::Samples;

/// Writes of the fsync probe.
const PROBES: usize = 300;
/// Bytes of each.
const PROBE_BYTES: usize = 8 * 1024;

/// The machine and the versions, as lines of Markdown.
pub(crate) fn describe(directory: &Path) -> String {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    // Where the workspace lies says nothing.
    let here = std::env::current_dir().unwrap_or_default();
    let shown = directory.strip_prefix(&here).unwrap_or(directory).display();
    format!(
        "- machine: {cpu}, {cores} cores, memory {memory}, Linux {}, load {}\n\
         - versions: hypercode {}, {}, SQLite {}\n\
         - files: `{shown}`, on {}",
        kernel.trim(),
        load.join(" "),
        env!("CARGO_PKG_VERSION"),
        rustc(),
        rusqlite::version(),
        file_system(directory),
    )
}

/// How long the disk takes to make 8 KiB durable, appended to a file, right now.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn fsync_probe(directory: &Path) -> io::Result<Samples> {
    let mut file = tempfile::tempfile_in(directory)?;
    let block = [0x5a; PROBE_BYTES];
    let mut samples = Samples::default();
    for _ in 0..PROBES {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    Ok(samples)
}

/// The Postgres server of this URL, whose files are there: its version, and what of its settings matters here.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn server(url: &str, files: &Path) -> Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let mut settings = Vec::new();
    for name in ["server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut connection).await?;
        settings.push(format!("{name} {value}"));
    }
    connection.close().await?;
    let (settings, kind) = (settings.join(", "), file_system(files));
    Ok(format!(
        "Postgres of the bench's own, over a Unix socket: {settings}; files: {} on {kind}",
        files.display()
    ))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "rustc unknown".to_owned(),
        |out| String::from_utf8_lossy(&out.stdout).trim().to_owned(),
    )
}

/// The type of the file system that holds `directory`: that of the longest mount point above it.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        directory.starts_with(point).then_some((point.len(), kind))
    });
    above.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}
