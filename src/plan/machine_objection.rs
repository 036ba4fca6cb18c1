//! Objections to the machine of a plan.

use super::Weight;
use crate::values::{Bytes, NodeId, PciAddress};

/// An objection to the machine around the devices of a guest, or a warning about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MachineObjection {
    /// The requested device does not exist.
    #[error("no PCI function {address} on this host")]
    NoDevice {
        /// Its address.
        address: PciAddress,
    },
    /// No cell of the guest is on the NUMA node of a device, or the node is unknown.
    #[error(
        "cannot determine the guest NUMA node of {address}: its host node is unknown, or no selected region is on it (use --device {address}=N)"
    )]
    DeviceNode {
        /// Its address.
        address: PciAddress,
    },
    /// The requested cell of a device does not exist.
    #[error("--device {address}={cell}: no guest NUMA node {cell}")]
    NoCell {
        /// The address of the device.
        address: PciAddress,
        /// The cell.
        cell: u32,
    },
    /// The host has no iommufd.
    #[error(
        "/dev/iommu does not exist: SMMUs are not accelerated, and CUDA may not work in the guest"
    )]
    NoIommufd,
    /// A device is on a bus of the guest that was chosen for it.
    #[error(
        "{address} is on a bus of the domain that is neither a plain root port nor below an expander bus; use --replace to move it"
    )]
    Elsewhere {
        /// The address of the device on the host.
        address: PciAddress,
    },
    /// The expander bus of a device is near to another cell.
    #[error(
        "{address} is on expander bus {index}, which is not near guest NUMA node {cell}; use --replace to change it"
    )]
    OtherCell {
        /// The address of the device on the host.
        address: PciAddress,
        /// The index of the bus.
        index: u32,
        /// The cell of the device.
        cell: u32,
    },
    /// The domain has an SMMU for the whole machine, beside which QEMU refuses others
    /// (`virt_machine_device_pre_plug_cb`, `hw/arm/virt.c`).
    #[error(
        "the domain has an IOMMU for the whole machine, beside which QEMU refuses those of buses; use --replace to remove it"
    )]
    WholeMachine,
    /// No number is free.
    #[error("the domain has no free {what} for the PCI controllers of the devices")]
    NoRoom {
        /// The kind of number.
        what: &'static str,
    },
    /// The window for large PCI devices would be larger than QEMU supports.
    #[error("the GPUs need a 64-bit PCI hole of {size}, but at most {limit} is possible")]
    HoleTooLarge {
        /// The required size.
        size: Bytes,
        /// The limit.
        limit: Bytes,
    },
    /// A GPU of an unknown model, whose memory is unknown.
    #[error("{address}: unknown model without memory BARs; assuming a 64-bit PCI hole of {size}")]
    UnknownModel {
        /// Its address.
        address: PciAddress,
        /// The assumed size.
        size: Bytes,
    },
    /// The host's distance between two cells is unknown.
    #[error(
        "the host's distance between guest NUMA nodes {from} and {to} is unknown; use --distances grace"
    )]
    NoDistance {
        /// A cell.
        from: u32,
        /// Another cell.
        to: u32,
    },
    /// Nothing can be pinned, or not the virtual CPUs of a cell.
    #[error("virtual CPUs{} are not pinned: {reason}", cell.map_or(String::new(), |cell| format!(" of guest NUMA node {cell}")))]
    NotPinned {
        /// The cell; `None` for all.
        cell: Option<u32>,
        /// The reason.
        reason: &'static str,
    },
    /// A new cell has no virtual CPUs, and those of the domain are distributed in its own way.
    #[error(
        "the domain assigns its virtual CPUs to NUMA nodes in its own way, which leaves none for the new one; use --vcpus N or --replace to distribute them anew"
    )]
    OwnDistribution,
    /// A virtual CPU gets another cell, but the domain pins it in its own way.
    #[error(
        "virtual CPU {vcpu} moves to another guest NUMA node, but the domain pins it in its own way to CPUs of another host node; use --replace to pin it anew"
    )]
    OwnPin {
        /// The virtual CPU.
        vcpu: u32,
    },
    /// More virtual CPUs than the node has free CPUs: none of them is pinned.
    #[error(
        "{vcpus} virtual CPUs are not pinned: NUMA node {node} has {cpus} free CPUs, without the one left to the host"
    )]
    TooManyVcpus {
        /// The number of virtual CPUs of all cells on the node.
        vcpus: u64,
        /// The node.
        node: NodeId,
        /// The number of available CPUs.
        cpus: u64,
    },
}

impl MachineObjection {
    /// Its weight.
    #[must_use]
    pub fn weight(&self) -> Weight {
        match self {
            Self::NoIommufd
            | Self::OtherCell { .. }
            | Self::UnknownModel { .. }
            | Self::TooManyVcpus { .. }
            | Self::NotPinned { .. } => Weight::Advice,
            _ => Weight::Impossible,
        }
    }
}
