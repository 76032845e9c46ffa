//! Whole fault listings of bad manifests: `testdata/NAME.yaml` gives `testdata/NAME.faults`.
//!
//! `UPDATE_GOLDEN=1` writes the listings anew; read the difference before keeping it.

#![allow(clippy::unwrap_used, reason = "tests may fail by panicking")]

use std::fs;
use std::path::Path;

use hypercode_manifest::{Code, Fault, parse};

#[test]
fn fault_listings_are_as_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut checked = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|extension| extension == "yaml" || extension == "json") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let parsed = parse(name, &fs::read(&path).unwrap());
        let manifests = parsed
            .manifests
            .iter()
            .map(|manifest| format!("read: {} {}\n", manifest.kind().as_str(), manifest.metadata().name));
        let listing: String =
            parsed.faults.iter().map(|fault| format!("{fault}\n")).chain(manifests).collect();
        let recorded = directory.join(format!("{name}.faults"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&recorded, &listing).unwrap();
        }
        assert_eq!(listing, fs::read_to_string(&recorded).unwrap(), "{name}");
        checked += 1;
    }
    assert!(checked >= 7, "only {checked} listings were checked");
}

fn codes(bytes: &[u8]) -> Vec<(Code, usize, usize)> {
    let parsed = parse("f", bytes);
    assert!(parsed.manifests.is_empty());
    let place = |fault: &Fault| fault.location.clone().map_or((0, 0), |at| (at.line, at.column));
    parsed.faults.iter().map(|fault| (fault.code, place(fault).0, place(fault).1)).collect()
}

#[test]
fn bytes_that_are_no_text_are_refused_where_they_stand() {
    assert_eq!(codes(b"kind: Crew\nname: \xC3\x28"), [(Code::NotUtf8, 2, 7)]);
    assert_eq!(codes(b"\xFF\xFEk\0"), [(Code::WrongEncoding, 1, 1)]);
    assert_eq!(codes(b"\0\0\xFE\xFF\0\0\0k"), [(Code::WrongEncoding, 1, 1)]);
    assert_eq!(codes("kind: Cr\u{e9}w\nä: \0".as_bytes()), [(Code::ControlCharacter, 2, 4)]);
    assert_eq!(codes(&vec![b' '; (1 << 20) + 1]), [(Code::TooLarge, 1, 1)]);
    let parsed = parse("f", b"kind: \xC3\x28");
    assert!(parsed.faults[0].to_string().contains("byte 0xc3 at offset 6"), "{}", parsed.faults[0]);
}

#[test]
fn a_file_without_a_document_is_a_fault() {
    for empty in ["", "# only a comment\n", "---\n", "---\n---\n", "~", "\u{feff}"] {
        assert_eq!(codes(empty.as_bytes()), [(Code::EmptyFile, 1, 1)], "{empty:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("kind: {}{}", "[".repeat(63), "]".repeat(63));
    assert!(!codes(deep.as_bytes()).iter().any(|(code, ..)| *code == Code::TooDeep));
    let deep = format!("kind: {}{}", "[".repeat(64), "]".repeat(64));
    assert_eq!(codes(deep.as_bytes()), [(Code::TooDeep, 1, 70)]);
    // An alias at depth adds the height of what it stands for.
    let sum =
        format!("a: &a {}{}\nb: {}*a{}", "[".repeat(40), "]".repeat(40), "[".repeat(40), "]".repeat(40));
    assert_eq!(codes(sum.as_bytes()), [(Code::TooDeep, 2, 44)]);
}

#[test]
fn aliases_expand_within_bounds() {
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, previous) in ('b'..='j').zip('a'..) {
        bomb += &format!("{name}: &{name} [{}]\n", vec![format!("*{previous}"); 10].join(", "));
    }
    assert_eq!(codes(bomb.as_bytes()).first().map(|(code, ..)| *code), Some(Code::TooManyValues));
    assert_eq!(codes(b"a: &a [*a]"), [(Code::RecursiveAlias, 1, 8)]);

    let shared = "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {name: &n shared}\n\
                  spec: {handler: {command: [run, *n]}, description: *n}";
    let parsed = parse("f", shared.as_bytes());
    assert_eq!((parsed.manifests.len(), parsed.faults.len()), (1, 0), "{:?}", parsed.faults);
}

#[test]
fn a_flood_of_faults_is_cut() {
    let flood: String = (0..5_000).map(|i| format!("field-{i}: x\n")).collect();
    let faults = parse("f", flood.as_bytes()).faults;
    assert_eq!(faults.len(), 201);
    assert_eq!(faults[200].code, Code::TooManyFaults);
}
