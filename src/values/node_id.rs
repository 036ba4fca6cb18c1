//! Numbers of NUMA nodes.

use std::fmt;

use serde::Serialize;

/// The number of a NUMA node in Linux, which is neither a proximity domain nor a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
