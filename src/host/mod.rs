//! What a host has: EGM regions, GPUs, NUMA nodes, and how they belong together.

mod accounts;
mod bus;
mod device_node;
mod gpu;
mod needs;
mod numa;
mod placement;
mod region;
mod scan;
mod shape;

pub use device_node::{Device, DeviceNumber, Owner};
pub use gpu::{Driver, Gpu};
pub use needs::Needs;
pub use numa::{NodeId, NodeKind, NumaNode, Topology};
pub use placement::NodeSource;
pub use region::{BadRegionName, Region, RegionName};
pub use scan::Host;
pub use shape::{Shape, Source};
