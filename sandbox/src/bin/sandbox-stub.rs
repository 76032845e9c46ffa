//! What the tests start, by the name it is given: keeper, canary, relay, a runner that only says hello, or a platform that
//! creates sandboxes and waits to be killed.

use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hypercode_sandbox::docker::{RELAY, relay_main};
use hypercode_sandbox::{CANARY, Instance, Kept, Options, Provider, Runner, Spec, canary_main, keeper_main};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let args: Vec<_> = env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let done = if name == Options::KEEPER {
        return keeper_main(args);
    } else if name == CANARY {
        return canary_main(args);
    } else if name == RELAY {
        return relay_main(args);
    } else if name == Runner::ARGV0 {
        say_hello(Path::new(&args[2]))
    } else {
        be_platform(PathBuf::from(&args[1]), Path::new(&args[2]))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn say_hello(socket: &Path) -> Result<(), Failure> {
    let mut link = UnixStream::connect(socket)?;
    link.write_all(b"hello\n")?;
    link.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Creates what the specifications in a JSON file say, writes a line for each and waits for ever.
fn be_platform(root: PathBuf, specs: &Path) -> Result<(), Failure> {
    let specs: Vec<Spec> = serde_json::from_slice(&std::fs::read(specs)?)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let provider = Kept::open(Options::new(root, Instance::new("00c0ffee")?)).await?;
        for spec in &specs {
            let running = provider.create(spec).await?;
            println!("{}", running.runner.map_or(0, |runner| runner.pid));
        }
        std::future::pending::<Result<(), Failure>>().await
    })
}
