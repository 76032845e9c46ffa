//! Witnesses: somebody else who has seen a checkpoint, found that it continues the one before, and signs that and when
//! (C2SP `tlog-witness`, `tlog-cosignature`). Who trusts a witness knows that the log has shown nobody another history.

#[cfg(any(test, feature = "test-util"))]
pub mod double;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};
use signed_note::{Verifier, VerifierList};

use super::checkpoint::Note;
use super::key::KeyError;
use crate::id::Digest;

/// The kind of signature that a cosignature is.
const COSIGNATURE_V1: u8 = 4;
/// The bytes of an Ed25519 public key.
const KEY_BYTES: usize = 32;
/// The bytes of the time that is signed along with a checkpoint.
const TIME_BYTES: usize = 8;

/// What checks the cosignatures of one witness: `<name>+<8 hex digits>+<base64>`.
#[derive(Clone, PartialEq, Eq)]
pub struct WitnessKey {
    text: String,
    name: String,
    id: u32,
    key: [u8; KEY_BYTES],
}

impl WitnessKey {
    /// Reads a witness's public key from its text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let form = "<name>+<8 hex digits>+<base64 of 04 and the Ed25519 key>";
        let malformed = || KeyError::Malformed { which: "witness's public", form };
        let text = text.trim();
        let (name, rest) = text.split_once('+').ok_or_else(malformed)?;
        let (id, encoded) = rest.split_once('+').ok_or_else(malformed)?;
        let bytes = BASE64.decode(encoded).map_err(|_| malformed())?;
        let (kind, key) = bytes.split_first().ok_or_else(malformed)?;
        let key = <[u8; KEY_BYTES]>::try_from(key).map_err(|_| malformed())?;
        let is_of_key = id.len() == 8 && u32::from_str_radix(id, 16) == Ok(signed_note::key_id(name, &bytes));
        if *kind != COSIGNATURE_V1 || !is_of_key || !signed_note::is_key_name_valid(name) {
            return Err(malformed());
        }
        Ok(Self { text: text.to_owned(), name: name.to_owned(), id: signed_note::key_id(name, &bytes), key })
    }

    /// The witness's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key's id, which is another for another key of the same witness.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the note bears a cosignature of this witness, and no bad one under its name.
    pub fn check(&self, note: &Note) -> bool {
        let known = VerifierList::new(vec![Box::new(self.clone())]);
        let note = signed_note::Note::from_bytes(note.as_str().as_bytes());
        note.is_ok_and(|note| note.verify(&known).is_ok())
    }

    /// The note with this witness's cosignature, one of the lines that a witness answered; `None` if none is good.
    pub fn cosigned(&self, note: &Note, answered: &str) -> Option<Note> {
        let mut cosigned = answered.lines().filter_map(|line| Note::parse(&format!("{note}{line}\n")).ok());
        cosigned.find(|note| self.check(note))
    }
}

impl Verifier for WitnessKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        let Some((time, signature)) = signature.split_first_chunk::<TIME_BYTES>() else { return false };
        let signed = [&opening(u64::from_be_bytes(*time)), text].concat();
        UnparsedPublicKey::new(&ED25519, self.key).verify(&signed, signature).is_ok()
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What stands before a checkpoint in the text that a witness signs; `at` is in seconds since 1970, UTC.
fn opening(at: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {at}\n").into_bytes()
}

/// What a witness that has seen `old` leaves is asked: the proof that the note's tree begins with them, and the note.
pub fn submission(old: u64, proof: &[Digest], note: &Note) -> String {
    let proof: String = proof.iter().map(|hash| BASE64.encode(hash.0) + "\n").collect();
    format!("old {old}\n{proof}\n{note}")
}

#[cfg(test)]
mod tests {
    use super::double::Witness;
    use super::*;
    use crate::audit::{Checkpoint, Signer};

    fn note(size: u64) -> Note {
        let signer = Signer::generate("hypercode/1");
        signer.sign(&Checkpoint { origin: "hypercode/1".into(), size, root: Digest::of(b"root") })
    }

    #[test]
    fn a_cosignature_is_good_for_one_checkpoint_by_one_witness() {
        let (witness, other) = (Witness::new("witness.example/w1", [1; 32]), Witness::new("other", [2; 32]));
        let key = WitnessKey::parse(&witness.public()).expect("a key");
        let (seven, eight) = (note(7), note(8));
        let line = witness.cosign(&seven, 1_795_000_000);
        let cosigned = key.cosigned(&seven, &line).expect("it is good");
        assert_eq!(cosigned.checkpoint(), seven.checkpoint());
        assert!(key.check(&cosigned) && !key.check(&seven));
        let among = format!("{}{line}", other.cosign(&seven, 1));
        assert!(key.cosigned(&seven, &among).is_some(), "other lines do no harm");
        for bad in [witness.cosign(&eight, 1), other.cosign(&seven, 1), String::new(), "— x AAAA\n".into()]
        {
            assert_eq!(key.cosigned(&seven, &bad), None, "{bad}");
        }
        let forged = cosigned.as_str().replacen("\n7\n", "\n8\n", 1);
        assert!(!key.check(&Note::parse(&forged).expect("its form is right")));
    }

    #[test]
    fn only_a_key_of_cosignatures_is_one() {
        let public = Witness::new("w", [1; 32]).public();
        assert_eq!(WitnessKey::parse(&public).expect("a key").to_string(), public);
        let log = Signer::generate("w").public().to_string();
        let renamed = public.replacen("w+", "v+", 1);
        for bad in [&log[..], &renamed, "", "w", "w+00000000+", "w+00000000+BAAA"] {
            assert!(WitnessKey::parse(bad).is_err(), "{bad}");
        }
    }
}
