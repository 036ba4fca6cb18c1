//! Reads the CDI specifications whose paths are given, and prints the names of their devices.

use std::path::PathBuf;
use std::process::ExitCode;

use container_device_interface::spec::read_spec;

fn main() -> ExitCode {
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        match read_spec(&path, 0) {
            Ok(spec) => println!("{spec:?}"),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
