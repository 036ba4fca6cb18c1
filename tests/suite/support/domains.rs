//! The domains of the fixtures.

use std::fs;
use std::path::{Path, PathBuf};

use egm_probe::domain::Dialect;

/// The domains of a kind, each in the folder of the machine that it is for.
pub fn domains(kind: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in fs::read_dir(super::fixtures().join("domains").join(kind)).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "xml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

pub fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

pub fn grace() -> String {
    fs::read_to_string(super::fixtures().join("domains/grace/gb200.xml")).unwrap()
}

/// The whole Grace domain, as each dialect spells it.
pub fn spellings() -> [(Dialect, String); 3] {
    let spelled = |spelling| grace().replace("ssidSize='20'", spelling);
    [
        (Dialect::Nvidia12_4, grace()),
        (Dialect::Nvidia11_9, spelled("pasid='on'")),
        (Dialect::Upstream, spelled("ssidsize='20'")),
    ]
}
