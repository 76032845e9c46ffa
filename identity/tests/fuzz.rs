//! Agents' tokens of any bytes: none is a panic, and none is taken that was not made.

#[path = "../../tests/support/fuzz.rs"]
mod fuzz;

use std::sync::Arc;

use events::{AgentId, CrewId, Incarnation, SandboxId, Tenant};
use fuzz::Target;
use hypercode_identity::{AgentKeys, Bearer, KeySet, SEED_BYTES, SigningKey, TOKEN_BYTES_MAX};

const NOW_S: u64 = 1_800_000_000;

#[test]
fn agent_token() {
    let (keys, signing) = (AgentKeys::default(), Arc::new(SigningKey::from_seed(&[7; SEED_BYTES])));
    let accepted = vec![(signing.public().clone(), None)];
    keys.set(KeySet { issuer: "urn:uuid:0193".to_owned(), signing: Some(signing), accepted });
    let minted: Vec<String> = (0..4)
        .map(|number| {
            let bearer = Bearer {
                tenant: Tenant::default(),
                crew: CrewId::derive(&["crew"]),
                agent: AgentId::derive(&["agent"]),
                incarnation: Incarnation(number),
                sandbox: SandboxId::derive(&["sandbox"]),
            };
            keys.mint(&bearer, NOW_S).expect("there is a key").text.to_string()
        })
        .collect();
    for token in &minted {
        assert!(keys.verify(token, NOW_S).is_ok(), "what was made is taken");
    }
    let inputs: Vec<_> = minted.iter().map(|token| token.clone().into_bytes()).collect();
    Target::new(env!("CARGO_MANIFEST_DIR"), "agent_token").with(inputs).run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let is_made = minted.iter().any(|token| token == text);
        for answer in [keys.verify(text, NOW_S), keys.verify_late(text, NOW_S)] {
            assert_eq!(answer.is_ok(), is_made, "{text}");
            if let Err(fault) = answer {
                let said = fault.to_string();
                assert!(text.len() < 16 || !said.contains(text), "{said} repeats the token");
                assert!(said.len() < TOKEN_BYTES_MAX, "{said}");
            }
        }
    });
}
