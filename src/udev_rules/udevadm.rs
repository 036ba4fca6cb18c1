//! The running udev: told to read its rules again, and to look at the devices again.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::files::program::{self, ProgramError};

/// Where udevd takes orders.
const CONTROL: &str = "/run/udev/control";

/// How long each order may take. udevd answers at once, or when the events before it are done.
const LIMIT: Duration = Duration::from_secs(30);

/// Why udev cannot be told anything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UdevProblem {
    #[error("udevadm: missing in PATH")]
    NoProgram,
    #[error("udevd: not running ({CONTROL} is missing)")]
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

    /// Has it read its rules again.
    pub(crate) fn reload(&self) -> Result<(), UdevProblem> {
        self.tell(&["control", "--reload"])
    }

    /// Has it look at the EGM devices again, as if they were changed or added, and waits until it has.
    pub(crate) fn trigger(&self, as_added: bool) -> Result<(), UdevProblem> {
        let action = if as_added { "--action=add" } else { "--action=change" };
        self.tell(&["trigger", action, "--subsystem-match=egm"])?;
        self.tell(&["settle", "--timeout=20"])
    }

    fn tell(&self, arguments: &[&str]) -> Result<(), UdevProblem> {
        program::run(&self.0, arguments, LIMIT)?;
        Ok(())
    }
}
