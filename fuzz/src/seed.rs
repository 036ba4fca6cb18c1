//! Writes the seeds of all targets, with a directory for each target; `--list` prints the targets
//! and their maximum input lengths.
//!
//! It is linked like a target: all targets are instrumented, and libFuzzer provides `main`.
#![no_main]
#![allow(unreachable_code)]

use std::path::Path;
use std::{env, fs};

use egm_probe_fuzz::inputs::TARGETS;

fn seed() -> std::io::Result<()> {
    let directory = env::args().nth(1).expect("usage: seed DIRECTORY|--list");
    for target in TARGETS {
        if directory == "--list" {
            println!("{} {}", target.name, target.longest);
            continue;
        }
        let directory = Path::new(&directory).join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(directory.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(
    init: {
        let result = seed();
        // Exit before fuzzing starts.
        std::process::exit(i32::from(result.is_err()))
    },
    |_data: &[u8]| {}
);
