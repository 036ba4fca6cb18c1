//! xmllint with libvirt's schemas and the project's extension.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use egm_probe::check::SCHEMAS;

/// The extension for a libvirt that is not installed, in a folder of its own.
pub fn extension_of(schemas: &Path, folder: &Path) -> PathBuf {
    let name = "egm-domain.rng";
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name));
    let installed = "file:///usr/share/libvirt/schemas";
    let text = text.unwrap().replace(installed, &format!("file://{}", schemas.display()));
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file
}

pub fn validates_with(schema: &Path, file: &Path) -> bool {
    let output = Command::new("xmllint")
        .args(["--noout", "--nonet", "--relaxng"])
        .args([schema, file])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    // With an invalid schema it prints neither "validates" nor "fails to validate".
    assert!(stderr.contains("validate"), "{stderr}");
    output.status.success()
}

/// Whether the programs are here, and libvirt's schema if it is needed.
pub fn can_run(programs: &[&str]) -> bool {
    if !super::has(programs) {
        return false;
    }
    let is_needed = programs.contains(&"xmllint");
    if is_needed && !Path::new("/usr/share/libvirt/schemas/domain.rng").exists() {
        super::skip("libvirt's schemas are not installed");
        return false;
    }
    true
}

/// The directories of libvirt's schemas, of the installed version and others: those that
/// `tools/libvirt-schemas` prints.
pub fn schemas() -> Vec<PathBuf> {
    let others = std::env::var("EGM_PROBE_TEST_SCHEMAS").unwrap_or_default();
    if others.is_empty() {
        super::skip("EGM_PROBE_TEST_SCHEMAS is not set: no schemas of newer libvirt versions");
    }
    let others = others.split(':').filter(|path| !path.is_empty()).map(PathBuf::from);
    others.chain([PathBuf::from(SCHEMAS)]).collect()
}
