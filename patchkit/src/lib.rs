//! Signed files: what they say, how they are packed, and whether an appliance may believe them.
//!
//! Without network or runtime; the agent's helper, the signing tool and the collector share it. The module list is the import order.
//! It must never change anything outside the folder that it is given, and never judge by anything but signatures and the facts handed in.

pub mod refusal;
pub mod manifest;
pub mod bounds;
pub mod crypto;
mod metadata;
pub mod file;
pub mod verify;
pub mod standing;
pub mod archive;
pub mod authoring;
pub mod online;
pub mod sample;

pub use crypto::install_crypto;
