//! Tokens: what they say and whose they are, beside their signatures alone.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use events::{AgentId, CrewId, Incarnation, SandboxId, Tenant};
use identity::{AgentKeys, Algorithm, ApiToken, Bearer, Issuer, KeySet, SigningKey, UserKeys, Verb};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};

use crate::Result;
use crate::samples::Samples;
use crate::table::{Row, Table};

/// When tokens are made and checked, in seconds since 1970.
const NOW_S: u64 = 1_800_000_000;
/// The deployment, and the issuer.
const ISSUER: &str = "https://login.example.com";
/// Checks of one turn.
const TURN: u32 = 200;
/// Hashes of tokens that are looked at.
const HASHES: u32 = 30;

pub(super) fn measure(seconds: u64, mut table: Table) -> Result<Table> {
    // Three pairs share the time.
    let time = Duration::from_secs(seconds) / 3;
    agents(time, &mut table)?;
    users(time, &mut table)?;
    let token = ApiToken::generate();
    let hash = token.hash()?;
    let mut hashed = Samples::default();
    for _ in 0..HASHES {
        let start = Instant::now();
        check(token.is_of(&hash))?;
        hashed.push(start.elapsed());
    }
    table.row(row("API token, Argon2id, once for each token", &hashed));
    table.note("tokens: one thread, so rates are those of one core; a token of ours or of the issuer, checked again and again at the same time of its life");
    Ok(table)
}

fn agents(time: Duration, table: &mut Table) -> Result<()> {
    let (keys, signing) = (AgentKeys::default(), SigningKey::generate());
    let shown = json!(signing.public().jwk());
    let x = BASE64.decode(shown["x"].as_str().ok_or("a key has no point")?)?;
    let raw_key = VerifyingKey::from_bytes(x.as_slice().try_into()?)?;
    keys.set(KeySet {
        issuer: ISSUER.to_owned(),
        accepted: vec![(signing.public().clone(), None)],
        signing: Some(signing.into()),
    });
    let bearer = Bearer {
        tenant: Tenant::default(),
        crew: CrewId::derive(&["crew"]),
        agent: AgentId::derive(&["agent"]),
        incarnation: Incarnation(1),
        sandbox: SandboxId::derive(&["sandbox"]),
    };
    let token = keys.mint(&bearer, NOW_S)?.text;
    let (message, signature) = parts(&token)?;
    let signature = Signature::from_slice(&signature)?;
    let raw = || raw_key.verify_strict(message, &signature).is_ok();
    let ours = || keys.verify(&token, NOW_S).is_ok_and(|token| token.is_of(&bearer, Verb::OpenLink).is_ok());
    compared(
        time,
        table,
        "Ed25519 signature of an agent's token",
        "agent's token, its agent and life",
        raw,
        ours,
    )
}

fn users(time: Duration, table: &mut Table) -> Result<()> {
    let random = SystemRandom::new();
    let failed = |_| "ring makes no key";
    let made = Ed25519KeyPair::generate_pkcs8(&random).map_err(failed)?;
    let ed25519 = Ed25519KeyPair::from_pkcs8(made.as_ref()).map_err(|_| "ring takes no key")?;
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
    let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random)
        .map_err(|_| "ring takes no key")?;
    let (edwards, point) = (ed25519.public_key().as_ref(), p256.public_key().as_ref());
    let text = |bytes: &[u8]| BASE64.encode(bytes);
    let jwks = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "ES256", "x": text(&point[1..33]), "y": text(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": text(edwards)},
    ]});
    let issuer = Issuer {
        issuer: ISSUER.to_owned(),
        audience: "hypercode".to_owned(),
        groups_claim: "groups".to_owned(),
        algorithms: Algorithm::ALL.to_vec(),
    };
    let keys = UserKeys::parse(issuer, jwks.to_string().as_bytes())?;
    let with_p256 = |message: &[u8]| p256.sign(&random, message).map(|signature| signature.as_ref().to_vec());
    let algorithms: [(&str, &'static dyn VerificationAlgorithm, &[u8]); 2] =
        [("EdDSA", &ED25519, edwards), ("ES256", &ECDSA_P256_SHA256_FIXED, point)];
    for (name, algorithm, public) in algorithms {
        let message = message(name);
        let signature = match name {
            "ES256" => with_p256(message.as_bytes()).map_err(failed)?,
            _ => ed25519.sign(message.as_bytes()).as_ref().to_vec(),
        };
        let token = format!("{message}.{}", text(&signature));
        let raw_key = UnparsedPublicKey::new(algorithm, public);
        let raw = || raw_key.verify(message.as_bytes(), &signature).is_ok();
        let ours = || keys.verify(&token, NOW_S).is_ok();
        let (bare, what) =
            (format!("{name} signature of an issuer's token"), format!("issuer's token, {name}"));
        compared(time, table, &bare, &what, raw, ours)?;
    }
    Ok(())
}

/// What an issuer signs.
fn message(algorithm: &str) -> String {
    let part = |value: Value| BASE64.encode(value.to_string());
    let header = part(json!({"alg": algorithm, "typ": "JWT", "kid": algorithm}));
    let claims = json!({
        "iss": ISSUER, "sub": "8c2f", "aud": "hypercode", "exp": NOW_S + 3_600, "iat": NOW_S,
        "groups": ["staff", "platform"], "email": "ada@example.com",
    });
    format!("{header}.{}", part(claims))
}

/// What a token's signature is of, and the signature.
fn parts(token: &str) -> Result<(&[u8], Vec<u8>)> {
    let (message, signature) = token.rsplit_once('.').ok_or("a token has three parts")?;
    Ok((message.as_bytes(), BASE64.decode(signature)?))
}

/// Checks in both ways, in turn, and shows how long each takes.
fn compared(
    time: Duration,
    table: &mut Table,
    bare: &str,
    what: &str,
    raw: impl Fn() -> bool,
    ours: impl Fn() -> bool,
) -> Result<()> {
    let (mut alone, mut all) = (Samples::default(), Samples::default());
    let until = Instant::now() + time;
    while alone.count() == 0 || Instant::now() < until {
        turn(&raw, &mut alone)?;
        turn(&ours, &mut all)?;
    }
    table.row(row(bare, &alone));
    table.row(row(what, &all).ratio(all.p50().as_secs_f64() / alone.p50().as_secs_f64()));
    Ok(())
}

fn turn(check_one: &impl Fn() -> bool, samples: &mut Samples) -> Result<()> {
    for _ in 0..TURN {
        let start = Instant::now();
        check(check_one())?;
        samples.push(start.elapsed());
    }
    Ok(())
}

/// The rate is that of the median check.
fn row(what: &str, samples: &Samples) -> Row {
    Row::new(what).samples(samples).rate(1.0 / samples.p50().as_secs_f64())
}

fn check(holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err("a token that is good was refused".into()) }
}
