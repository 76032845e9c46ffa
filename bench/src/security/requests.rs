//! Requests over HTTP: to a route that anybody may ask, and to one that needs a token and a permission.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::door::Door;
use crate::rig::Rig;
use crate::samples::Samples;
use crate::sandboxes::Sandbox;
use crate::table::{Row, Table};
use crate::{Result, Setup};

const CREW: &str = "
apiVersion: hypercode.dev/v1
kind: Crew
metadata: {name: bench}
spec:
  entry: worker
  members: [{name: worker, profile: worker}]
";

/// Answers what anybody may know.
const OPEN: &str = "/healthz";
/// Answers who asks: nothing is read for it but the token and its roles.
const AUTHORISED: &str = "/v1/whoami";
/// Connections that ask at once.
const CONNECTIONS: usize = 8;
/// Requests of one turn: on one connection, and on each of several.
const ALONE: u64 = 500;
const TOGETHER: u64 = 300;
/// Tokens whose first use is measured.
const TOKENS: usize = 30;

/// A kind of request, and how long its requests took.
struct Kind {
    what: &'static str,
    request: Arc<str>,
    bytes: usize,
    alone: Samples,
    /// Time that all connections together needed for their requests.
    together: Duration,
    count: u64,
}

impl Kind {
    fn new(what: &'static str, path: &str, token: Option<&str>) -> Self {
        Self {
            what,
            request: request(path, token).into(),
            bytes: 0,
            alone: Samples::default(),
            together: Duration::ZERO,
            count: 0,
        }
    }

    async fn turn(&mut self, address: SocketAddr) -> Result<()> {
        let mut connection = Connection::open(address).await?;
        self.bytes = connection.ask(&self.request).await?;
        for _ in 0..ALONE {
            let start = Instant::now();
            connection.ask(&self.request).await?;
            self.alone.push(start.elapsed());
        }
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(address).await?);
        }
        let (start, mut asking) = (Instant::now(), JoinSet::new());
        for mut connection in connections {
            let request = Arc::clone(&self.request);
            asking.spawn(async move {
                for _ in 0..TOGETHER {
                    connection.ask(&request).await?;
                }
                Result::Ok(())
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked??;
            self.count += TOGETHER;
        }
        self.together += start.elapsed();
        Ok(())
    }

    fn rate(&self) -> f64 {
        self.count as f64 / self.together.as_secs_f64()
    }
}

pub(super) async fn measure(setup: &Setup, table: &mut Table) -> Result<()> {
    let rig = Rig::start_at(&setup.place("rig").await, Sandbox::Process, CREW).await?;
    let door = Door::open(&rig).await?;
    let mut first = Samples::default();
    let mut minted = String::new();
    for _ in 0..TOKENS {
        minted = mint(&door).await?;
        let (mut connection, request) =
            (Connection::open(door.address).await?, request(AUTHORISED, Some(&minted)));
        // The connection is warm, the token is not.
        connection.ask(&self::request(OPEN, None)).await?;
        let start = Instant::now();
        connection.ask(&request).await?;
        first.push(start.elapsed());
    }
    let admin = std::fs::read_to_string(rig.config.token_file())?;
    let mut kinds = [
        Kind::new("request that anybody may make", OPEN, None),
        Kind::new("by the administrator's token", AUTHORISED, Some(admin.trim())),
        Kind::new("by a minted token, known by now", AUTHORISED, Some(&minted)),
    ];
    let until = Instant::now() + Duration::from_secs(setup.seconds);
    while kinds[0].alone.count() == 0 || Instant::now() < until {
        for kind in &mut kinds {
            kind.turn(door.address).await?;
        }
    }
    door.close().await?;
    rig.stop().await?;
    let bare = kinds[0].alone.p50().as_secs_f64();
    for kind in &kinds {
        let row = Row::new(kind.what).samples(&kind.alone).rate(kind.rate());
        let is_open = kind.request == kinds[0].request;
        table.row(if is_open { row } else { row.ratio(kind.alone.p50().as_secs_f64() / bare) });
    }
    let row = Row::new("by a minted token, its first request").samples(&first);
    table.row(row.ratio(first.p50().as_secs_f64() / bare));
    let [open, admin, minted] = kinds.map(|kind| kind.bytes);
    table.note(format!(
        "requests: GET {OPEN}, which is open, and GET {AUTHORISED}, over loopback without TLS; p50 and p99 of one connection, the rate of {CONNECTIONS}; ratios of p50; answers of {open}, {admin} and {minted} bytes with their heads"
    ));
    Ok(())
}

/// A token that was made now, so that nobody has looked at it yet.
async fn mint(door: &Door) -> Result<String> {
    let wanted = json!({"principal": "user:bench", "roles": ["viewer"]});
    let made = door.client.post("/v1/tokens", &wanted, None).await?;
    Ok(made["body"]["secret"].as_str().ok_or_else(|| format!("no token was made: {made}"))?.to_owned())
}

fn request(path: &str, token: Option<&str>) -> String {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n")
}

/// A client that costs as little as one can.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks, and answers how many bytes came back.
    async fn ask(&mut self, request: &str) -> Result<usize> {
        self.0.get_mut().write_all(request.as_bytes()).await?;
        let (mut line, mut head, mut body) = (String::new(), 0, 0);
        loop {
            line.clear();
            let bytes = self.0.read_line(&mut line).await?;
            if head == 0 && !line.starts_with("HTTP/1.1 200 ") {
                return Err(format!("the platform answered `{}`", line.trim()).into());
            }
            head += bytes;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => body = value.parse()?,
                None if line == "\r\n" => break,
                _ if bytes == 0 => return Err("the platform hung up".into()),
                _ => {}
            }
        }
        let mut left = vec![0; body];
        self.0.read_exact(&mut left).await?;
        Ok(head + body)
    }
}
