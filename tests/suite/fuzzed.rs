//! A short run of the fuzz targets with their seeds, past findings, and variations of both. Unlike
//! the coverage-guided `fuzz/run`, it needs neither a C++ compiler nor an instrumented build, so it
//! runs with all other tests.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use crate::inputs::{TARGETS, target};

/// The seed of the random numbers, so that every machine tries the same variations.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

fn regressions(name: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/inputs/regressions");
    let files = fs::read_dir(here.join(name)).into_iter().flatten();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

/// Reproducible pseudo-random numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    /// A number less than a limit, or 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end.max(1)
    }

    fn varied(&mut self, seeds: &[Vec<u8>], longest: usize) -> Vec<u8> {
        const WORDS: [&[u8]; 10] = [
            b"\n",
            b"\0",
            b"-1",
            b"18446744073709551615",
            b"0x",
            b"'",
            b"<",
            b"\xff",
            b"\x1b[31m",
            "\u{202e}".as_bytes(),
        ];
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(3) {
            let at = self.below(input.len());
            let end = (at + self.below(16)).min(input.len());
            match self.below(5) {
                0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
                1 => drop(input.drain(at..end)),
                2 => drop(input.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                3 => drop(input.splice(at..end, input[at..end].repeat(2))),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    drop(input.splice(at.., other[from..].iter().copied()));
                }
            }
        }
        input.truncate(longest);
        input
    }
}

fn run(name: &str, variations: usize) {
    let target = target(name);
    let mut seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} has nothing to start from");
    seeds.extend(regressions(name));
    let check = |input: &[u8], which: &str| {
        let shown = || String::from_utf8_lossy(input).into_owned();
        let is_right = catch_unwind(|| (target.run)(input)).is_ok();
        assert!(is_right, "{name} fails with {which} ({SEED:#x}): {:?}", shown());
    };
    for (number, seed) in seeds.iter().enumerate() {
        check(seed, &format!("seed {number}"));
    }
    let mut numbers = Numbers(SEED);
    for number in 0..variations {
        check(&numbers.varied(&seeds, target.longest), &format!("variation {number}"));
    }
}

/// One test for each target, so that they run side by side, with the number of its variations: as
/// many as take about half a second.
macro_rules! targets {
    ($($name:ident: $variations:literal,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { run(stringify!($name), $variations); })*
    };
}

targets! {
    pci_address: 1000,
    id_list: 1000,
    size: 1000,
    attributes: 50,
    distances: 50,
    maps: 40,
    leases: 60,
    manifest: 300,
    setup: 300,
    nodes: 100,
    explain: 1000,
    domain: 1000,
    stanza: 700,
    definition: 25,
    archive: 1000,
}

#[test]
fn every_target_runs_here_and_in_the_fuzzer() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, NAMES);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    // The published crate does not contain it.
    let Ok(manifest) = fs::read_to_string(fuzz.join("Cargo.toml")) else { return };
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target of fuzz/");
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", data)")), "{program}");
    }
    for entry in fs::read_dir(Path::new(file!()).with_file_name("inputs/regressions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(NAMES.contains(&name.as_str()), "regressions of {name}, which is no target");
    }
}
