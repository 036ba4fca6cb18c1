//! The running udev: reloads its rules and reprocesses devices.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::files::program::{self, ProgramError};

/// The control socket of udevd.
const CONTROL: &str = "/run/udev/control";

/// Time limit for each command. udevd responds at once, or after earlier events are processed.
const LIMIT: Duration = Duration::from_secs(30);

/// The reason why udev cannot be controlled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UdevProblem {
    #[error("udevadm: missing in PATH; --no-reload only writes the file")]
    NoProgram,
    #[error("udevd: not running ({CONTROL} is missing); --no-reload only writes the file")]
    NoDaemon,
    #[error(transparent)]
    Failed(#[from] ProgramError),
}

/// The running udev.
pub(crate) struct Udev(PathBuf);

impl Udev {
    pub(crate) fn find() -> Result<Self, UdevProblem> {
        let program = program::find("udevadm").ok_or(UdevProblem::NoProgram)?;
        let is_socket = fs::metadata(CONTROL).is_ok_and(|file| file.file_type().is_socket());
        if is_socket { Ok(Self(program)) } else { Err(UdevProblem::NoDaemon) }
    }

    /// Makes it reload its rules.
    pub(crate) fn reload(&self) -> Result<(), UdevProblem> {
        self.run(&["control", "--reload"])
    }

    /// Makes it process the EGM devices again, as if they were changed or added, and waits for
    /// completion.
    pub(crate) fn trigger(&self, as_added: bool) -> Result<(), UdevProblem> {
        let action = if as_added { "--action=add" } else { "--action=change" };
        self.run(&["trigger", action, "--subsystem-match=egm"])?;
        self.run(&["settle", "--timeout=20"])
    }

    fn run(&self, arguments: &[&str]) -> Result<(), UdevProblem> {
        program::run(&self.0, arguments, LIMIT)?;
        Ok(())
    }
}
