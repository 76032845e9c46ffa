//! JSON Web Tokens in compact form (RFC 7515, RFC 7519), taken apart strictly (RFC 8725): whatever may be refused
//! without a key is refused here, before any key is looked up and anything is computed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// How far clocks may be apart, in seconds: the platform checks what itself has made.
pub const LEEWAY_S: u64 = 5;

/// Why a token is refused. Whoever showed it is told no more than that it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is too long to be looked at.
    #[error("it has {0} bytes, more than {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    /// It has characters that no token has.
    #[error("it has characters other than those of base64url and `.`")]
    Charset,
    /// It is not made of header, claims and signature.
    #[error("it has not exactly three parts")]
    Parts,
    /// A part is not base64url in its one form.
    #[error("its {0} is not base64url")]
    Encoding(&'static str),
    /// The header cannot be read.
    #[error("its header cannot be read")]
    Header,
    /// The header asks for extensions to be understood.
    #[error("its header has `crit`")]
    Critical,
    /// The header brings a key along, or says where to fetch one.
    #[error("its header has `{0}`: keys are not taken from tokens")]
    EmbeddedKey(&'static str),
    /// It is signed in a way that is not taken.
    #[error("its `alg` is not the one of its key")]
    Algorithm,
    /// It is another kind of token.
    #[error("its `typ` is not the one that is expected")]
    Type,
    /// No key has its name.
    #[error("its `kid` names no key that is accepted")]
    UnknownKey,
    /// Its key did not sign it.
    #[error("its signature is not that of its key")]
    Signature,
    /// Its claims cannot be read.
    #[error("its claims cannot be read")]
    Claims,
    /// Somebody else issued it.
    #[error("its `iss` is not the expected one")]
    Issuer,
    /// It is for something else.
    #[error("its `aud` is not what it was shown to")]
    Audience,
    /// It would live for too long, or ends before it begins.
    #[error("it lives for longer than it may, or not at all")]
    Lifetime,
    /// It is not valid yet.
    #[error("it begins in the future")]
    Early,
    /// It has ended.
    #[error("it has ended")]
    Expired,
    /// It does not permit what it was shown for.
    #[error("its `scope` does not permit this")]
    Scope,
    /// It is of another agent, another life of the agent, or another sandbox.
    #[error("its `{0}` is not that of whoever shows it")]
    Foreign(&'static str),
}

/// What of the header matters. Other members mean nothing, as the standard has it.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, deserialize_with = "there")]
    crit: bool,
    #[serde(default, deserialize_with = "there")]
    jwk: bool,
    #[serde(default, deserialize_with = "there")]
    jku: bool,
    #[serde(default, deserialize_with = "there")]
    x5u: bool,
    #[serde(default, deserialize_with = "there")]
    x5c: bool,
}

/// Whether a member is there, be it `null`.
fn there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// A token that was taken apart. Nothing of it is believed yet.
pub(crate) struct Compact<'a> {
    header: Header,
    /// What is signed.
    pub(crate) message: &'a [u8],
    /// What it is signed with.
    pub(crate) signature: Vec<u8>,
    claims: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Fault> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Fault::TooLong(text.len()));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(Fault::Charset);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::Parts)?;
        let (header, claims) = signed.split_once('.').ok_or(Fault::Parts)?;
        if claims.contains('.') {
            return Err(Fault::Parts);
        }
        let header: Header =
            serde_json::from_slice(&decoded(header, "header")?).map_err(|_| Fault::Header)?;
        if header.crit {
            return Err(Fault::Critical);
        }
        let embedded = [("jwk", header.jwk), ("jku", header.jku), ("x5u", header.x5u), ("x5c", header.x5c)];
        if let Some((name, _)) = embedded.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Fault::EmbeddedKey(name));
        }
        Ok(Self {
            header,
            message: signed.as_bytes(),
            signature: decoded(signature, "signature")?,
            claims: decoded(claims, "claims")?,
        })
    }

    /// How it is said to be signed.
    pub(crate) fn algorithm(&self) -> &str {
        &self.header.alg
    }

    /// The name of the key that is said to have signed it.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Whether it says that it is of this type; media types may be written with or without `application/`, and in any
    /// case (RFC 7515 §4.1.9).
    pub(crate) fn is_type(&self, expected: &str) -> bool {
        let Some(typ) = &self.header.typ else { return false };
        const PREFIX: &str = "application/";
        let bare = match typ.get(..PREFIX.len()) {
            Some(start) if start.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
            _ => typ,
        };
        bare.eq_ignore_ascii_case(expected)
    }

    /// Whether it does not say of which type it is.
    pub(crate) fn has_no_type(&self) -> bool {
        self.header.typ.is_none()
    }

    /// Its claims, in the form that is expected of them. To be read once the signature was checked.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.claims).map_err(|_| Fault::Claims)
    }
}

/// Bytes of their one spelling: without padding, and without stray bits at the end.
fn decoded(part: &str, name: &'static str) -> Result<Vec<u8>, Fault> {
    BASE64.decode(part).map_err(|_| Fault::Encoding(name))
}

/// A token's text: what is to be signed, then what `sign` makes of it.
pub(crate) fn compact<const N: usize>(
    header: &[u8],
    claims: &[u8],
    sign: impl FnOnce(&[u8]) -> [u8; N],
) -> String {
    let mut text = BASE64.encode(header);
    text.push('.');
    BASE64.encode_string(claims, &mut text);
    let signature = sign(text.as_bytes());
    text.push('.');
    BASE64.encode_string(signature, &mut text);
    text
}
