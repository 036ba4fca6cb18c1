//! The program: see the library's `cli` module.
#![forbid(unsafe_code)]
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::io::{self, BufWriter};
use std::process::ExitCode;

use egm_probe::cli::{Terminal, run};

fn main() -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    run(std::env::args_os(), Terminal::detect(), &mut out, &mut io::stderr().lock()).into()
}
