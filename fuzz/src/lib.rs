//! The fuzz targets. Their code is shared with the tests, which run short versions of them.

#[path = "../../tests/suite/inputs/mod.rs"]
pub mod inputs;

#[allow(dead_code, missing_docs)]
#[path = "../../tests/suite/support/tree.rs"]
pub mod tree;

/// The part of the tests' support that the inputs use.
pub mod support {
    pub use crate::tree;
}

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    // Searched for each input; these are only a dozen comparisons.
    (inputs::target(name).run)(data);
}
