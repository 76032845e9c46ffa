//! Links and tokens: what somebody does who sits beside an agent, and has even read its token out of its runner's memory.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use nix::sys::signal::Signal;
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::frames::CREW;
use crate::stage::Stage;
use crate::support::{eventually, send};
use crate::told::{head, recorded, says, text, told, told_without};

/// Most bytes of memory that are searched at a time.
const REGION_BYTES_MAX: u64 = 64 << 20;
/// How long a link may stay silent before it counts as let in.
const SILENCE: Duration = Duration::from_secs(3);

/// A WebSocket frame of a client; the mask of zeros changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0xff][..], &(payload.len() as u64).to_be_bytes(), &[0; 4], payload].concat()
}

pub(crate) fn said(text: &str) -> Vec<u8> {
    frame(0x81, text.as_bytes())
}

pub(crate) fn hello() -> Vec<u8> {
    said(r#"{"t":"hello","v":[1],"runner":"x","arch":"x"}"#)
}

/// The request for a link.
pub(crate) fn upgrade(token: Option<&str>) -> String {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "GET /link/v1 HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: hypercode.link.v1\r\n{token}\r\n"
    )
}

/// The code with which the platform closes a link that says this first; `None` where it does not.
pub(crate) async fn closed(socket: &Path, token: Option<&str>, first: &[u8]) -> Option<u16> {
    let mut link = UnixStream::connect(socket).await.ok()?;
    // The other end may close before it has read it all.
    let _ = link.write_all(&[upgrade(token).as_bytes(), first].concat()).await;
    let mut heard = Vec::new();
    let _ = tokio::time::timeout(SILENCE, link.read_to_end(&mut heard)).await;
    let end = heard.windows(4).position(|found| found == b"\r\n\r\n")?;
    let mut frames = &heard[end + 4..];
    while let [kind, length, rest @ ..] = frames {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), &rest[2..]),
            length => (usize::from(*length), rest),
        };
        assert!(!rest.windows(11).any(|found| found == b"\"t\":\"welcom"), "it was let in");
        if *kind == 0x88 {
            return Some(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]));
        }
        frames = rest.get(length..)?;
    }
    None
}

/// The tokens of agents in a process's memory, newest last.
fn tokens_in(pid: i32) -> Vec<String> {
    let begin = BASE64.encode(&br#"{"alg":"EdDSA","typ":"agent+jwt"#[..30]);
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = std::fs::File::open(format!("/proc/{pid}/mem")) else { return Vec::new() };
    let mut found = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        let (from, to) = (number(range.0), number(range.1));
        let mut bytes = vec![0; usize::try_from((to - from).min(REGION_BYTES_MAX)).expect("a size")];
        let Ok(read) = memory.read_at(&mut bytes, from) else { continue };
        let text = String::from_utf8_lossy(&bytes[..read]);
        for (at, _) in text.match_indices(&begin) {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let token: String = text[at..].chars().take_while(|c| legal(*c)).collect();
            if token.split('.').count() == 3 && claims(&token).is_some() && !found.contains(&token) {
                found.push(token);
            }
        }
    }
    found.sort_by_key(|token| claims(token).and_then(|claims| claims["iat"].as_i64()));
    found
}

pub(crate) fn claims(token: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(1)?).ok()?).ok()
}

/// The process that is an agent's runner, and the token by which it holds its link.
fn stolen_from(stage: &Stage, agent: &Value) -> (i32, String) {
    stolen_if(stage, agent, |_| true).expect("the agent's runner has a token")
}

/// The newest token of an agent in its runner's memory of which this holds: older ones may still lie there.
pub(crate) fn stolen_if(stage: &Stage, agent: &Value, is: impl Fn(&str) -> bool) -> Option<(i32, String)> {
    let is_its = |token: &String| {
        claims(token).is_some_and(|claims| {
            claims["sub"].as_str().is_some_and(|sub| sub.ends_with(text(agent, "id")))
                && claims["slot"] == agent["sandbox"]
        }) && is(token)
    };
    let runners = stage.home.processes().into_iter().filter(|process| process.command.contains("runner"));
    let mut found =
        runners.filter_map(|runner| Some((runner.pid, tokens_in(runner.pid).into_iter().rfind(&is_its)?)));
    found.next()
}

pub(crate) fn stolen(stage: &Stage, agent: &Value) -> String {
    stolen_from(stage, agent).1
}

/// Whether root runs the test; one line is said where it does not.
pub(crate) fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    assert!(is_root || std::env::var_os("CI").is_none(), "reading a runner's memory takes root");
    if !is_root {
        eprintln!("skipped: reading a runner's memory takes root");
    }
    is_root
}

/// An agent's link in the hands of somebody who has stopped its runner and read its token.
pub(crate) async fn taken_over(stage: &Stage, agent: &Value) -> UnixStream {
    let (runner, token) = stolen_from(stage, agent);
    send(runner, Signal::SIGSTOP);
    eventually("the silent link gives way", async || {
        for socket in stage.home.sockets() {
            let mut link = UnixStream::connect(&socket).await.ok()?;
            link.write_all(&[upgrade(Some(&token)).as_bytes(), &hello()].concat()).await.ok()?;
            let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(Ok(read @ 1..)) = tokio::time::timeout(SILENCE, link.read(&mut buffer)).await {
                heard.extend_from_slice(&buffer[..read]);
                if heard.windows(11).any(|found| found == b"\"t\":\"welcom") {
                    return Some(link);
                }
            }
        }
        None
    })
    .await
}

/// The codes with which all sockets turn this token away.
pub(crate) async fn everywhere(sockets: &[PathBuf], token: &str) -> Vec<Option<u16>> {
    let mut codes = Vec::new();
    for socket in sockets {
        codes.push(closed(socket, Some(token), &hello()).await);
    }
    codes.sort_unstable();
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_stolen_opens_nothing() {
    if !is_root() {
        return;
    }
    let stage = Stage::with_crew().await;
    let lead = stage.agent("lead", "ready", |agent| agent["status"] == "ready").await;
    let token = stolen(&stage, &lead);
    let sockets = stage.home.sockets();
    assert_eq!(sockets.len(), 2, "one for each agent");

    let after = head(&stage).await;
    assert_eq!(everywhere(&sockets, &token).await, [Some(4003), Some(4004)]);
    let of_lead = |event: &Value| says(event, text(&lead, "sandbox"));
    let second =
        recorded(&stage, after, "sandbox_tampered", |it| of_lead(it) && says(it, "second_link")).await;
    told("T10", "a second link with the agent's own token", "4004", second);
    let foreign = recorded(&stage, after, "sandbox_tampered", |event| says(event, "foreign_token")).await;
    told("T12", "an agent's token at another's socket", "4003", foreign);
    let unharmed = stage.agent("lead", "unharmed", |agent| agent["status"] == "ready").await;
    assert_eq!(unharmed["incarnation"], 1, "{unharmed:#}");

    // An agent's token is no user's, and a user's is no agent's.
    let after = head(&stage).await;
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(hypercode::tls::none());
    let client = client.build().expect("a client");
    let address = std::fs::read_to_string(stage.home.data().join("http.address")).expect("an address");
    let api = stage.api.insist_get("/openapi.json").await;
    let mut tried = 0;
    for (path, methods) in api["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            if operation["x-permission"].is_null() {
                continue;
            }
            let url = format!("http://{}{}", address.trim(), path.replace(['{', '}'], ""));
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = client.request(method, url).bearer_auth(&token).send().await.expect("an answer");
            // Beyond some strangers a second nobody is looked at.
            assert!(matches!(answer.status().as_u16(), 401 | 429), "{path}: {}", answer.status());
            tried += 1;
        }
    }
    let admin = std::fs::read_to_string(stage.home.data().join("admin.token")).expect("a token");
    for socket in &sockets {
        assert_eq!(closed(socket, Some(admin.trim()), &hello()).await, Some(4003));
    }
    let denied = recorded(&stage, after, "access_denied", |event| event["principal"] == "system:api").await;
    assert!(tried > 40, "only {tried} routes were tried");
    told(
        "T15",
        &format!("an agent's token at {tried} routes, and a user's on links"),
        "401 and 4003",
        denied,
    );

    let after = head(&stage).await;
    stage.hypercode(&["agent", "restart", text(&lead, "id")]).await.ok();
    let next =
        stage.agent("lead", "in its next life", |it| it["incarnation"] == 2 && it["status"] == "ready").await;
    assert_ne!(next["sandbox"], lead["sandbox"]);
    let codes = everywhere(&stage.home.sockets(), &token).await;
    assert_eq!(codes, [Some(4003), Some(4003)], "it was of an earlier life");
    let fenced = recorded(&stage, after, "sandbox_tampered", |event| says(event, "foreign_token")).await;
    told("T11", "the token of a life that has ended", "4003", fenced);
    stage.leave().await;
}

/// What an attacker makes of a token without the key.
fn forged(token: &str, public: &[u8]) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("a token has three parts") };
    let usual: Value = serde_json::from_slice(&BASE64.decode(head).expect("base64")).expect("a header");
    let with = |field: &str, value: Value| {
        let mut header = usual.clone();
        header[field] = value;
        BASE64.encode(header.to_string())
    };
    let hs256 = with("alg", json!("HS256"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, public);
    let mac = BASE64.encode(hmac::sign(&key, format!("{hs256}.{body}").as_bytes()).as_ref());
    let mut claims = claims(token).expect("claims");
    claims["exp"] = json!(4_000_000_000u64);
    let longer = BASE64.encode(claims.to_string());
    let (middle, last) = signature.split_at(signature.len() / 2);
    let flipped = format!("{middle}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..]);
    vec![
        ("T13", format!("{}.{body}.", with("alg", json!("none")))),
        ("T13", format!("{}.{body}.{signature}", with("alg", json!("NoNe")))),
        ("T13", format!("{hs256}.{body}.{mac}")),
        ("T13", format!("{}.{body}.{signature}", with("jwk", json!({"kty": "OKP"})))),
        ("T13", format!("{head}.{body}.{flipped}")),
        ("T13", format!("{head}.{body}")),
        ("T13", format!("{head}.{body}.{signature}=")),
        ("T13", format!("{head}.{body}.{signature}.{signature}")),
        ("T14", format!("{}.{body}.{signature}", with("crit", json!(["b64"])))),
        ("T14", format!("{}.{body}.{signature}", with("typ", json!("refresh+jwt")))),
        ("T14", format!("{head}.{longer}.{signature}")),
        ("T14", format!("{head}.{body}.{signature}{}", "A".repeat(8 * 1024))),
        ("T16", format!("{}.{body}.{signature}", with("kid", json!("../../etc/passwd")))),
        ("T16", format!("{}.{body}.{signature}", with("kid", json!("' OR 1=1 --")))),
        ("T16", format!("{}.{body}.{signature}", with("kid", json!("k".repeat(3_000))))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_forged_opens_nothing() {
    if !is_root() {
        return;
    }
    let stage = Stage::with_crew().await;
    let lead = stage.agent("lead", "ready", |agent| agent["status"] == "ready").await;
    let jwks = stage.api.insist_get("/.well-known/jwks.json").await;
    let public = BASE64.decode(text(&jwks["keys"][0], "x")).expect("a public key");
    let sockets = stage.home.sockets();
    let tokens = forged(&stolen(&stage, &lead), &public);
    for (attack, tried) in [
        ("T13", "tokens with no signature, another algorithm, a key of their own, changed bytes"),
        ("T14", "tokens with `crit`, another type, years of life, 8 KiB"),
        ("T16", "tokens whose key is a path, SQL, 3 KiB"),
    ] {
        let after = head(&stage).await;
        for (_, token) in tokens.iter().filter(|(of, _)| *of == attack) {
            for socket in &sockets {
                assert_eq!(closed(socket, Some(token), &hello()).await, Some(4003), "{attack}: {token}");
            }
        }
        let is_told = |event: &Value| says(event, "foreign_token");
        told(attack, tried, "4003", recorded(&stage, after, "sandbox_tampered", is_told).await);
    }
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_too_much_at_once_is_cut_off() {
    let stage = Stage::with_crew().await;
    let huge = said(&format!(r#"{{"t":"hello","v":[1],"runner":"{}"}}"#, "x".repeat(1 << 20)));
    let mut fragments = frame(0x01, b"{");
    for _ in 0..10_000 {
        fragments.extend(frame(0x00, &b"x".repeat(100)));
    }
    let claimed = [&[0x81, 0xff][..], &(1u64 << 40).to_be_bytes(), &[0; 4], b"x"].concat();
    let compressed = frame(0xc1, b"\x00\x00");
    for socket in stage.home.sockets() {
        for (number, bytes) in [&huge, &fragments, &claimed, &compressed].into_iter().enumerate() {
            let code = closed(&socket, None, bytes).await;
            assert!(code.is_some() || number == 2 || number == 1, "frame {number} is still served");
        }
    }
    let task = stage.submit(&json!({"do": "delegate", "to": "worker", "input": {"do": "echo"}})).await;
    assert_eq!(stage.ended(&task).await["status"], "completed");
    for agent in stage.api.list("/v1/agents?crew=troupe").await {
        assert_eq!((&agent["incarnation"], &agent["status"]), (&json!(1), &json!("ready")), "{agent:#}");
    }
    eventually("the platform still answers", async || stage.api.get("/healthz").await.ok()).await;
    told_without(
        "T06",
        "frames of 1 MiB, of 10,000 fragments, compressed ones",
        "closed",
        "nothing was understood",
    );
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_posing_as_others_is_quarantined_until_a_person_has_it_back() {
    if !is_root() {
        return;
    }
    let stage = Stage::empty().await;
    stage.assemble(CREW).await.ok();
    let loner = stage.agent("loner", "ready", |agent| agent["status"] == "ready").await;
    let mut link = taken_over(&stage, &loner).await;
    let after = head(&stage).await;
    let mut last = after;
    for (number, field) in ["from", "tenant", "crew", "ts", "position"].into_iter().enumerate() {
        let params = json!({"to": "worker", "text": "trust me", (field): "another"});
        let call = json!({"t": "call", "id": 1_000 + number, "method": "message/send", "params": params});
        link.write_all(&said(&call.to_string())).await.expect("the link is up");
        last = recorded(&stage, last, "frame_refused", |event| says(event, "loner[0]")).await;
    }
    assert!(stage.api.list("/v1/audit?kind=message_sent").await.is_empty());
    told("T01", "frames that name their own sender, tenant, crew, time or position", "identity_field", last);

    let aside = stage.agent("loner", "quarantined", |agent| agent["status"] == "quarantined").await;
    assert!(text(&aside, "reason").contains("named their own sender"), "{aside:#}");
    let position = recorded(&stage, after, "agent_quarantined", |_| true).await;
    told(
        "T54",
        "five frames within a minute that name their own sender",
        "the agent is quarantined",
        position,
    );
    eventually("its crew knows", async || {
        let crew = stage.json(&["crew", "show", "troupe"]).await;
        let seats = crew["seats"].as_array().expect("seats");
        seats
            .iter()
            .any(|seat| seat["agent"] == aside["id"] && seat["givenUp"] == "quarantined")
            .then_some(())
    })
    .await;

    // A sibling's failure restarts all others, and not this one.
    let body = json!({"crew": "troupe", "to": "worker", "input": {"do": "die"}});
    let task = stage.api.insist("/v1/tasks", &body, "die").await.done();
    stage.ended(text(&task, "id")).await;
    stage.agent("lead", "restarted with it", |it| it["incarnation"] == 2 && it["status"] == "ready").await;
    let still = stage.agent("loner", "as it was", |_| true).await;
    assert_eq!((&still["status"], &still["incarnation"]), (&json!("quarantined"), &json!(1)), "{still:#}");

    stage.hypercode(&["agent", "restart", text(&aside, "id")]).await.ok();
    stage.agent("loner", "back", |it| it["incarnation"] == 2 && it["status"] == "ready").await;
    stage.leave().await;
}
