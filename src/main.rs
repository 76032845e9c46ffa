//! The `hypercode` binary. By the name under which it is started it is the command line, or one of the small programs
//! that the platform starts beside itself, so that one file is all there is to install.

use std::process::ExitCode;

/// Commands and events are many short texts that one thread makes and another drops, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().and_then(|name| Some(std::path::Path::new(&name).file_name()?.to_owned()));
    match name.as_deref().and_then(|name| name.to_str()) {
        Some(sandbox::Runner::ARGV0) => runner::main(args),
        Some(sandbox::Options::KEEPER) => sandbox::keeper_main(std::env::args_os()),
        Some(sandbox::CANARY) => sandbox::canary_main(args),
        Some(sandbox::docker::RELAY) => sandbox::docker::relay_main(args),
        _ => hypercode::cli::main(),
    }
}
