//! What forgers do to a bundle, and that both verifiers find it at the same place.

use super::*;

/// What a forger does to a bundle, and what must be found first.
type Forgery = (&'static str, fn(&Path), &'static str, u64);

const FORGERIES: &[Forgery] = &[
    (
        "flip a payload",
        |b| {
            edit(b, EVENTS, |mut l| {
                l[434] = l[434].replace("434", "435");
                l
            })
        },
        "event_changed",
        435,
    ),
    (
        "flip a name",
        |b| {
            edit(b, EVENTS, |mut l| {
                l[0] = l[0].replace("system:test", "user:eve");
                l
            })
        },
        "event_changed",
        1,
    ),
    (
        "flip a leaf",
        |b| {
            edit(b, EVENTS, |mut l| {
                let at = l[649].len() - 10;
                l[649].replace_range(at..at + 4, "0000");
                l
            })
        },
        "event_changed",
        650,
    ),
    (
        "tear a line",
        |b| {
            edit(b, EVENTS, |mut l| {
                l[76].truncate(50);
                l
            })
        },
        "event_damaged",
        77,
    ),
    (
        "delete",
        |b| {
            edit(b, EVENTS, |mut l| {
                l.remove(499);
                l
            })
        },
        "event_missing",
        500,
    ),
    (
        "insert",
        |b| {
            edit(b, EVENTS, |mut l| {
                l.insert(9, l[5].clone());
                l
            })
        },
        "event_missing",
        10,
    ),
    (
        "reorder",
        |b| {
            edit(b, EVENTS, |mut l| {
                l.swap(19, 20);
                l
            })
        },
        "event_missing",
        20,
    ),
    (
        "truncate",
        |b| {
            edit(b, EVENTS, |mut l| {
                l.truncate(640);
                l
            })
        },
        "head_changed",
        641,
    ),
    (
        "append",
        |b| {
            edit(b, EVENTS, |mut l| {
                l.push(l[699].replace(":700,", ":701,"));
                l
            })
        },
        "event_changed",
        701,
    ),
    (
        "truncate with the manifest",
        |b| {
            edit(b, EVENTS, |mut l| {
                l.truncate(640);
                l
            });
            let hash = by_line(b, 640);
            edit(b, MANIFEST, |l| {
                replace_all(l, &[("\"to\": 700", "\"to\": 640"), (&by_manifest(b), &hash)])
            });
        },
        "log_rewritten",
        601,
    ),
    (
        "forge a size",
        |b| {
            edit(b, CHECKPOINTS, |mut l| {
                l[7] = "599".into();
                l
            })
        },
        "checkpoint_missing",
        600,
    ),
    (
        "forge a signature",
        |b| {
            edit(b, CHECKPOINTS, |mut l| {
                swap_last(&mut l[10]);
                l
            })
        },
        "checkpoint_forged",
        600,
    ),
    (
        "forge an origin",
        |b| {
            edit(b, CHECKPOINTS, |mut l| {
                l[6] = "hypercode/other".into();
                l
            })
        },
        "checkpoint_foreign",
        600,
    ),
    (
        "tear a checkpoint",
        |b| {
            edit(b, CHECKPOINTS, |mut l| {
                l[10].truncate(20);
                l
            })
        },
        "checkpoint_missing",
        600,
    ),
    (
        "leave out a checkpoint",
        |b| {
            edit(b, CHECKPOINTS, |mut l| {
                l.drain(6..12);
                l
            })
        },
        "checkpoint_missing",
        600,
    ),
    (
        "leave out the last",
        |b| {
            edit(b, CHECKPOINTS, |mut l| {
                l.truncate(12);
                l
            })
        },
        "checkpoint_missing",
        700,
    ),
    (
        "another key",
        |b| edit(b, KEYS, |_| vec![crate::audit::Signer::generate("hypercode/test").public().to_string()]),
        "checkpoint_forged",
        300,
    ),
];

/// Forgeries of somebody who chains everything anew and makes manifest and checkpoints fit. The key he does not have.
const FORGERIES_THAT_FIT: &[Forgery] = &[
    (
        "change all and leave out every checkpoint",
        |b| {
            forge(b, |events| events[0].meta.principal = Principal::user("eve"));
            keep_checkpoints(b, 0);
        },
        "log_unsigned",
        1,
    ),
    (
        "change the tail and leave out the last checkpoint",
        |b| {
            forge(b, |events| events[650].meta.principal = Principal::user("eve"));
            keep_checkpoints(b, 2);
        },
        "log_unsigned",
        601,
    ),
    (
        "truncate and leave out the last checkpoint",
        |b| {
            forge(b, |events| events.truncate(695));
            keep_checkpoints(b, 2);
        },
        "log_unsigned",
        601,
    ),
    ("change a head's hash", |b| claim(b, |manifest| manifest.hash = Digest::of(b"x")), "head_changed", 700),
    (
        "say of an event twice who did it",
        |b| edit(b, EVENTS, |l| replace_at(l, 99, "{", r#"{"principal":"user:eve","#)),
        "event_damaged",
        100,
    ),
    (
        "add what is not hashed",
        |b| edit(b, EVENTS, |l| replace_at(l, 99, "{", r#"{"approvedBy":"user:eve","#)),
        "event_damaged",
        100,
    ),
    (
        "leave out a field",
        |b| edit(b, EVENTS, |l| replace_at(l, 99, r#""causationId":null,"#, "")),
        "event_damaged",
        100,
    ),
    (
        "write a number otherwise",
        |b| edit(b, EVENTS, |l| replace_at(l, 0, r#""position":1,"#, r#""position":true,"#)),
        "event_damaged",
        1,
    ),
    (
        "say that it is of another log",
        |b| claim(b, |manifest| manifest.origin = "hypercode/other".to_owned()),
        "checkpoint_foreign",
        300,
    ),
];

#[tokio::test]
async fn a_forged_bundle_is_found_out_by_both_at_the_same_place() {
    let desk = Desk::new().await;
    for (name, forge, kind, position) in FORGERIES.iter().chain(FORGERIES_THAT_FIT) {
        let (_scratch, path) = bundle(&desk, 1, 700, Format::Jsonl).await;
        forge(&path);
        mend_sums(&path);
        let found = faults(&path).await;
        assert_eq!(found.first(), Some(&((*kind).to_owned(), *position)), "{name}: {found:?}");
    }
}
