//! The fuzz targets: what each does is beside the tests, which do the same in short.

#[path = "../../tests/suite/inputs/mod.rs"]
pub mod inputs;

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    // Looked up by each input: a dozen comparisons.
    (inputs::target(name).run)(data);
}
