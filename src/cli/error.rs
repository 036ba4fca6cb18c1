//! What ends a command early.

use std::io;

use super::Exit;
use crate::output::columns::NoSuchColumn;
use crate::sysroot::{OpenError, describe};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write the output: {}", describe(.0))]
    Write(#[from] io::Error),
    #[error(transparent)]
    Column(#[from] NoSuchColumn),
    #[error("{0}")]
    NoEgm(String),
    #[error("{0}")]
    No(String),
    #[error("{0}")]
    Unreadable(String),
}

impl Error {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Open(_) | Self::Write(_) | Self::Unreadable(_) => Exit::Failed,
            Self::Column(_) => Exit::Usage,
            Self::NoEgm(_) => Exit::NoEgm,
            Self::No(_) => Exit::No,
        }
    }
}
