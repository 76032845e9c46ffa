//! Manifests of any bytes: none is a panic; what is refused is said to be so at a line of the file; what is taken is taken
//! again as it is written.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line")]

#[path = "../../tests/support/fuzz.rs"]
mod fuzz;

use fuzz::Target;
use hypercode_manifest::parse;

const EXAMPLES: [&[u8]; 5] = [
    include_bytes!("../testdata/design.yaml"),
    include_bytes!("../testdata/profile.yaml"),
    include_bytes!("../testdata/pool.yaml"),
    include_bytes!("../testdata/documents.yaml"),
    include_bytes!("../testdata/crew.json"),
];

fn check(input: &[u8]) {
    let parsed = parse("f.yaml", input);
    let lines = input.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    for fault in &parsed.faults {
        let at = fault.location.as_ref().unwrap_or_else(|| panic!("{fault} is nowhere"));
        assert!((1..=lines + 1).contains(&at.line) && at.column >= 1, "{fault}: of {lines} lines");
        assert!(!fault.expected.is_empty(), "{fault}");
        assert!(!fault.to_string().contains('\n'), "{fault:?}");
    }
    if parsed.has_errors() {
        return;
    }
    for manifest in &parsed.manifests {
        let written = serde_json::to_string(manifest).unwrap();
        let again = parse("f.json", written.as_bytes());
        assert!(!again.has_errors(), "{written}: {:?}", again.faults);
        assert_eq!(again.manifests, std::slice::from_ref(manifest), "{written}");
    }
}

#[test]
fn manifest() {
    let examples = EXAMPLES.map(<[u8]>::to_vec);
    Target::new(env!("CARGO_MANIFEST_DIR"), "manifest").with(examples).run(check);
}
