//! The fuzz targets: what each does is beside the tests, which do the same in short.

#[path = "../../tests/suite/inputs/mod.rs"]
pub mod inputs;

/// What the inputs take of the tests' support.
pub mod support {
    #![allow(dead_code, missing_docs)]
    #[path = "../../../tests/suite/support/tree.rs"]
    pub mod tree;
}

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    // Looked up by each input: a dozen comparisons.
    (inputs::target(name).run)(data);
}
