//! The recorded machines themselves: those that were made up are what the builder makes.

use std::fs;
use std::io::Read;

use crate::support::{archive, fixtures, machines, patients, tree};
use flate2::read::GzDecoder;

/// `UPDATE_FIXTURES=1` writes them anew.
#[test]
fn made_up_machines_are_what_the_builder_makes() {
    let made = machines::all().into_iter().map(|(name, made)| (name, archive(name), made));
    let patient = |name| fixtures().join(format!("doctor/{name}.tar.gz"));
    let patients = patients::all().into_iter().map(|(name, made)| (name, patient(name), made));
    for (name, path, made) in made.chain(patients) {
        let tar = made.tar();
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, tree::gzip(&tar)).unwrap();
        }
        let mut recorded = Vec::new();
        let file = fs::File::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        GzDecoder::new(file).read_to_end(&mut recorded).unwrap();
        // Not assert_eq: nobody wants to see two archives.
        assert!(recorded == tar, "{name} differs: run `make golden` and look at what changed");
    }
}
