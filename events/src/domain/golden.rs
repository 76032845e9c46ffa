//! What is in the log for ever: `testdata/golden/KIND.vSCHEMA.json` holds one payload of every kind in every schema.
//!
//! The files are written by hand, once, and never changed: a payload that was stored can be read for ever. A new kind
//! or schema brings its file along.

use std::path::{Path, PathBuf};

use super::{
    DecodeError, DomainEvent, access, agent, artifact, crew, keys, message, platform, pool, profile, secrets,
    state, task,
};

fn file(kind: &str, schema: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/golden/{kind}.v{schema}.json"))
}

/// Every schema of every kind is read; the newest is also written exactly so, byte for byte.
fn check<E: DomainEvent>() -> usize {
    for &(kind, newest) in E::KINDS {
        for schema in 1..=newest {
            let path = file(kind, schema);
            let payload = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}; write one payload there", path.display()));
            let event = E::decode(kind, schema, payload.trim_end())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if schema == newest {
                let stored = event.encode();
                assert_eq!((&*stored.kind, stored.schema), (kind, newest));
                assert_eq!(&*stored.payload, payload.trim_end(), "{}", path.display());
            }
        }
        let newer = E::decode(kind, newest + 1, "{}");
        assert!(matches!(newer, Err(DecodeError::NewerSchema { .. })), "{kind}");
    }
    assert!(matches!(E::decode("no_such_kind", 1, "{}"), Err(DecodeError::UnknownKind { .. })));
    E::KINDS.len()
}

#[test]
fn every_kind_in_every_schema_can_be_read_for_ever() {
    let kinds = check::<access::Event>()
        + check::<agent::Event>()
        + check::<artifact::Event>()
        + check::<crew::Event>()
        + check::<keys::Event>()
        + check::<message::Event>()
        + check::<platform::Event>()
        + check::<pool::Event>()
        + check::<profile::Event>()
        + check::<secrets::Event>()
        + check::<state::Event>()
        + check::<task::Event>();
    let files = std::fs::read_dir(file("", 0).parent().expect("a file lies in a directory"));
    assert!(files.expect("the golden files are there").count() >= kinds);
}
