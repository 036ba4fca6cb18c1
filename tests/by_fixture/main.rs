//! One test for each machine, each host of `doctor` and each domain below `tests/fixtures`, named
//! after it: a directory or file more is a test more.

mod doctor;
mod domains;
mod golden;
mod machines;
mod measured;
#[path = "../suite/support/mod.rs"]
mod support;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(machines::trials());
    trials.extend(doctor::trials());
    trials.extend(domains::trials());
    trials.extend(measured::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test of one thing for one fixture.
fn trial(kind: &str, fixture: &str, test: impl FnOnce() + Send + 'static) -> Trial {
    let kind_of_test = kind.to_owned();
    Trial::test(format!("{kind}::{fixture}"), move || {
        // A reason to skip one is a reason to skip all of the kind.
        support::NAME.set(Some(kind_of_test));
        test();
        Ok(())
    })
}
