//! From a file to manifests and faults.

use std::collections::BTreeSet;

use crate::fault::{Code, Fault, Faults, Severity};
use crate::{Manifest, Source, decode, text, yaml};

/// What a file contains.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// The manifests without errors, in the order of the file.
    pub manifests: Vec<Manifest>,
    /// Everything that is wrong, in the order of the file.
    pub faults: Vec<Fault>,
    /// Every document as it stands in the file. If no fault is an error, they are those of the
    /// manifests.
    pub sources: Vec<Source>,
}

impl Parsed {
    /// Whether any of the faults is an error. If none is, every document of the file is among the
    /// manifests.
    pub fn has_errors(&self) -> bool {
        self.faults.iter().any(|fault| fault.severity == Severity::Error)
    }
}

/// Parses and checks the manifests of one file: YAML or JSON, several documents parted by `---`.
///
/// All faults are found in one pass, up to 200. The file may have 1 MiB, its values may be nested
/// 64 levels deep and number 100,000 with aliases expanded; what is beyond is a fault too. Empty
/// documents are passed over. `file` is only a name for the faults.
pub fn parse(file: &str, bytes: &[u8]) -> Parsed {
    let mut faults = Faults::new(file);
    let (manifests, sources) = match text::decode(bytes, &mut faults) {
        Some(text) => read(text, &mut faults),
        None => Default::default(),
    };
    Parsed { manifests, faults: faults.finish(), sources }
}

fn read(text: &str, faults: &mut Faults) -> (Vec<Manifest>, Vec<Source>) {
    let mut documents = yaml::read(text, faults);
    documents.retain(|document| !document.root.is_null());
    if documents.is_empty() && !faults.any_error() {
        let expected = "expected at least one document with apiVersion and kind";
        faults.push((1, 1), Fault::error(Code::EmptyFile, "", expected));
    }
    let mut manifests = Vec::new();
    let mut names = BTreeSet::new();
    for document in &documents {
        let mut own = Faults::new(faults.file());
        let manifest = decode::manifest(&document.root, &mut own).filter(|_| !document.is_faulty);
        if let Some(manifest) = manifest {
            let metadata = manifest.metadata();
            match names.insert((manifest.kind(), metadata.tenant.clone(), metadata.name.clone())) {
                true => manifests.push(manifest),
                false => decode::report_duplicate(&document.root, &mut own),
            }
        }
        faults.append(own);
    }
    let sources = documents.into_iter().map(|document| Source::new(faults.file(), document.root));
    (manifests, sources.collect())
}
